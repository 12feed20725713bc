"""Publishing what a manifest builds: to a hub and a registry, from there into another project, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from llmbuild.cli.main import main
from llmbuild.errors import ExitCode
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, Result, make_project
from tests.helpers.registry import LOGIN, RegistryServer, running_registry
from tests.helpers.upload_hub import UploadHub, running_upload_hub

NAME = "tiny-q4f32_1-MLC"
SECRET = "hf_5entinel0f70ken"
BASIC = base64.b64encode(":".join(LOGIN).encode()).decode()
SECRETS = (SECRET, BASIC, LOGIN[1])
Run = Callable[..., Result]


def tables(host: str) -> str:
    return f"""
[publish.hub]
to = "hf:org/{{model}}-{{quantization}}-MLC"
private = true
license = "apache-2.0"
platforms = []

[publish.registry]
to = "oci:{host}/org/{{model}}:{{quantization}}"
platforms = []

[publish.mirror]
to = "oci:{host}/org/{{model}}:checkpoint"
content = "checkpoint"
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry"), login=True) as running:
        yield running


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """A project that is built, and whose manifest names three destinations."""
    project = make_project(
        tmp_path_factory.mktemp("built"), TINY_MANIFEST + tables("registry.example"), cached_checkpoint("llama")
    )
    project.build("quantize", "config")
    return project


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with running_upload_hub() as running:
        running.token, running.large, running.part = SECRET, 2000, 100_000
        yield running


@pytest.fixture
def env(hub: UploadHub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": SECRET,
        "HOME": str(tmp_path / "home"),
        "NO_PROXY": "*",
    }


@pytest.fixture
def mirrored(built: ProjectDir, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> ProjectDir:
    """The project with the registry that runs, and a login for that."""
    built.write(TINY_MANIFEST + tables(registry.host))
    for name, value in (("", registry.host), ("_USERNAME", LOGIN[0]), ("_PASSWORD", LOGIN[1])):
        monkeypatch.setenv(f"LLMBUILD_REGISTRY{name}", value)
    return built


@pytest.fixture
def run(
    env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs `llmbuild publish` in a project, in this process; none of its words has a credential."""

    def run(project: ProjectDir, *arguments: str, code: int = 0) -> Result:
        for name, value in {**env, "LLMBUILD_CACHE": str(project.store), "NO_COLOR": "1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(project.root)
        found = main(["publish", *arguments])
        result = Result(found, *capfd.readouterr())
        assert result.code == code, result.text
        assert not any(secret in result.text for secret in SECRETS)
        return result

    return run


def test_a_missing_token_is_found_before_anything_is_sent_elsewhere(
    mirrored: ProjectDir, registry: RegistryServer, env: dict[str, str], run: Run
) -> None:
    first = f'[publish.first]\nto = "oci:{registry.host}/org/first:{{model}}"\nplatforms = []\n'
    twin = f'[publish.twin]\nto = "hf:org/{NAME}"\n'
    mirrored.write(TINY_MANIFEST + tables(registry.host) + first + twin)
    env |= {"HF_TOKEN": "", "COLUMNS": "80"}
    refused = run(mirrored, "first", "hub", code=ExitCode.USAGE)
    assert refused.err == (
        f"error: hf:org/{NAME}: publishing to a hub needs a token\n"
        "  why: HF_TOKEN is not set; a saved login is not used\n"
        "  fix: make an access token that may write in the settings of your account at\n"
        "       the hub, and set HF_TOKEN to it\n"
    )
    twice = run(mirrored, "hub", "twin", code=ExitCode.USAGE)
    assert twice.err == (
        f"error: buildfile.toml: two [publish] tables go to hf:org/{NAME}\n"
        "  why: they are [publish.hub] and [publish.twin]\n"
        "  fix: name the one to publish\n"
    )
    assert "  + README.md" in run(mirrored, "first", "--dry-run").out.splitlines()


def test_at_a_hub(built: ProjectDir, hub: UploadHub, run: Run) -> None:
    looked = run(built, "hub", "--dry-run").out
    assert looked.startswith(f"hf:org/{NAME}: ")
    assert "  + README.md" in looked.splitlines()
    assert {one.method for one in hub.requests} == {"GET"}
    assert hub.repos == {}

    said = run(built, "hub").out
    repo = hub.repos[f"org/{NAME}"]
    branch = repo.branches["main"]
    assert repo.private
    assert said == f"{looked}published hf:org/{NAME}@{branch.commit}\n"
    model = {f"{path}": data for path, data in built.snapshot(f"dist/{NAME}").items()}
    assert model.items() <= branch.files.items()
    rest = branch.files.keys() - model.keys() - {".gitattributes"}
    assert rest == {"README.md", "SHA256SUMS", f"provenance/{NAME}.intoto.json"}

    record = json.loads((built.root / ".llmbuild/published.json").read_text())
    assert record[f"hf:org/{NAME}"]["reference"] == f"hf:org/{NAME}@{branch.commit}"
    again = run(built, "hub", "--json").out
    assert json.loads(again)["reference"] == f"hf:org/{NAME}@{branch.commit}"
    assert json.loads(again)["bytes"] == 0
    assert len(branch.messages) == 1


def test_the_card(built: ProjectDir, hub: UploadHub, run: Run) -> None:
    run(built, "hub")
    card = hub.repos[f"org/{NAME}"].branches["main"].files["README.md"].decode()
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert head.splitlines() == [
        "library_name: mlc-llm",
        "pipeline_tag: text-generation",
        'license: "apache-2.0"',
        'tags: ["mlc-llm", "web-llm", "llmbuild"]',
    ]
    for text in (
        f"# {NAME}",
        "| quantization | `q4f32_1` |",
        "| architecture | `llama` |",
        "| conversation template | `chatml` |",
        "| context window | 64 tokens |",
        f'engine = MLCEngine("{NAME}")',
    ):
        assert text in body
    shards = sum(len(data) for name, data in built.snapshot(f"dist/{NAME}").items() if name.startswith("params_"))
    assert f"| weights | {shards / 1e3:.1f} kB to download" in body


def test_pulled_by_digest_verified_and_built_from(
    mirrored: ProjectDir, registry: RegistryServer, run: Run, env: Mapping[str, str], tmp_path: Path
) -> None:
    said = run(mirrored, "mirror", "registry").out
    found = dict(re.findall(rf"published oci:{registry.host}/org/(tiny)@(sha256:[0-9a-f]{{64}})", said))
    assert found
    mirror, model = re.findall(r"published (\S+)", said)
    source = TINY_MANIFEST.replace('"checkpoint"', f'"{mirror}"')
    other = make_project(tmp_path, source)
    wanted = ("fetch", "quantize", "config")
    assert set(other.build("--provenance", *wanted, env=env)) == {"fetch", "inspect", "quantize", "config"}
    assert other.snapshot(f"dist/{NAME}") == mirrored.snapshot(f"dist/{NAME}")
    statement = json.loads((other.root / f"dist/provenance/{NAME}.intoto.json").read_text())
    uris = {one.get("uri") for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    digest = mirror.rpartition(":")[2]
    assert f"pkg:oci/tiny@sha256%3A{digest}?repository_url={registry.host}/org/tiny" in uris
    assert f'[sources."{mirror}"' in (other.root / "llmbuild.lock").read_text()
    # Another machine takes it from what the lock promises; nothing more is asked of the registry.
    registry.requests.clear()
    assert other.build("--locked", *wanted, env=env) == {}
    assert registry.requests == []

    # A model that is built is no checkpoint.
    other.write(TINY_MANIFEST.replace('"checkpoint"', f'"{model}"'))
    result = other.run("build", "fetch", env=env)
    assert result.code == 3
    assert "is a model that llmbuild built, and no checkpoint" in result.err


def test_no_credential_is_kept(
    mirrored: ProjectDir, hub: UploadHub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mirrored)
    hub.token = "another"
    (mirrored.root / ".llmbuild/published.json").unlink()
    assert "the hub does not let you publish here" in run(mirrored, "hub", code=4).err
    # What nobody foresaw goes to a log as a traceback.
    with monkeypatch.context() as broken:
        broken.delattr("llmbuild.workspace.publishing._record")
        broken.setenv("LLMBUILD_DEBUG", "1")
        assert "Traceback" in run(mirrored, "registry", code=ExitCode.INTERNAL).err
    assert list((mirrored.root / ".llmbuild/logs").glob("llmbuild-crash-*"))
    for arguments in (["doctor"], ["doctor", "--json"], ["build", "-v", "--force", "config"], ["plan", "--json"]):
        result = mirrored.run(*arguments, env={"HF_TOKEN": SECRET, "NO_PROXY": "*"})
        assert result.code == 0, result.text
        assert not any(secret in result.text for secret in SECRETS), arguments
    kept = [
        path
        for root in (mirrored.root, mirrored.store, tmp_path)
        for path in root.rglob("*")
        if path.is_file() and any(text.encode() in path.read_bytes() for text in SECRETS)
    ]
    assert kept == []


@pytest.fixture
def copy(built: ProjectDir, tmp_path: Path) -> ProjectDir:
    """A copy of the built project, with the same store."""
    shutil.copytree(built.root, tmp_path / "project", symlinks=True)
    made = ProjectDir(tmp_path / "project", built.store)
    made.build("--offline", "quantize", "config")
    return made


def test_what_is_stale_is_refused(copy: ProjectDir, hub: UploadHub, run: Run) -> None:
    copy.write((copy.root / "buildfile.toml").read_text().replace("window-size = 64", "window-size = 48"))
    text = run(copy, "hub", code=1).err
    assert "config[tiny, q4f32_1] is not up to date" in text
    assert "run `llmbuild build -m tiny -q q4f32_1`" in text
    assert hub.requests == []


@pytest.mark.parametrize("to", ["hub", "registry"])
@pytest.mark.parametrize("arguments", [("--offline",), ("--dry-run",)])
def test_offline_asks_nobody(
    mirrored: ProjectDir,
    hub: UploadHub,
    registry: RegistryServer,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    arguments: tuple[str, ...],
) -> None:
    if "--offline" not in arguments:
        monkeypatch.setenv("LLMBUILD_OFFLINE", "1")
    before = len(registry.requests)
    refused = run(mirrored, to, *arguments, code=ExitCode.FETCH)
    assert ": publishing needs the network\n  why: --offline forbids it" in refused.err
    assert "fix: publish without --offline, and with LLMBUILD_OFFLINE unset" in refused.err
    assert (refused.out, hub.requests, len(registry.requests)) == ("", [], before)


def test_what_another_manifest_built_is_refused(copy: ProjectDir, hub: UploadHub, run: Run) -> None:
    text = (copy.root / "buildfile.toml").read_text().replace("window-size = 64", "window-size = 48")
    (copy.root / "other.toml").write_text(text)
    text = run(copy, "hub", "-f", "other.toml", code=1).err
    assert "run `llmbuild build -m tiny -q q4f32_1 -f other.toml`" in text
    assert hub.requests == []


def test_what_was_changed_by_hand_is_refused(copy: ProjectDir, hub: UploadHub, run: Run) -> None:
    config = copy.root / f"dist/{NAME}/mlc-chat-config.json"
    config.unlink()
    config.write_text("{}")
    assert "config[tiny, q4f32_1] is not up to date" in run(copy, "hub", code=1).err
    assert hub.requests == []


def test_a_checkpoint_that_is_stale(copy: ProjectDir, run: Run) -> None:
    shutil.copyfile(copy.root / "checkpoint/config.json", copy.root / "checkpoint/generation_config.json")
    text = run(copy, "mirror", code=1).err
    assert "fetch[tiny] is not up to date" in text
    assert "run `llmbuild build fetch -m tiny`" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hubb",), "no [publish] table is named 'hubb'"),
        (("elsewhere",), "name one, or a destination such as hf:org/name"),
        (("hf:org/{modle}",), "'{modle}' stands for nothing in 'hf:org/{modle}'"),
        (("oci:ghcr.io/org/x:y", "--private"), "oci:ghcr.io/org/x:y takes no 'private'"),
        (("hub", "hf:org/{model}-{quantization}-MLC"), f"hf:org/{NAME} is named twice"),
        (("hf:org/x", "hf:org/x"), "error: hf:org/x is named twice\n  fix: name it once"),
        (("hub", "-m", "other"), "no model is named 'other'"),
        (("ftp:x",), "'ftp:x' is not a destination"),
    ],
)
def test_what_a_command_line_gets_wrong(built: ProjectDir, run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in run(built, *arguments, code=2).err


PRESET = """
[models.shape]
preset = "tinyllama_1b_chat_v1.0"

[[build]]
models = ["shape"]
quantizations = ["q4f32_1"]
platforms = ["x86_64-linux-cpu"]
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the manifest names no destination"),
        (("hf:org/x",), "shape has no weights to publish"),
    ],
)
def test_a_preset(tmp_path: Path, run: Run, arguments: tuple[str, ...], said: str) -> None:
    project = make_project(tmp_path, PRESET)
    assert said in run(project, *arguments, code=2).err


def test_the_checkpoint_of_a_preset(tmp_path: Path, run: Run) -> None:
    project = make_project(tmp_path, PRESET + '\n[publish.x]\nto = "hf:org/x"\ncontent = "checkpoint"\n')
    assert "shape has no checkpoint to publish" in run(project, code=2).err
