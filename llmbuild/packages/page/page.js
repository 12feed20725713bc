// A chat with the models of webllm-app-config.json.  Nothing is loaded but what lies beside this page, and, where the
// configuration says so, the models' files at their own address.

const APP_CONFIG = "webllm-app-config.json";
const at = (id) => document.getElementById(id);
const megabytes = (bytes) => `${Math.max(1, Math.round(bytes / 1e6)).toLocaleString("en")} MB`;

let webllm, config, engine, loaded = false, writing = false;
const talk = [];

const here = (address) => new URL(address, document.baseURI).href;
const record = () => config.model_list.find((one) => one.model_id === at("models").value);

async function start() {
  const answer = await fetch(APP_CONFIG, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${APP_CONFIG}: the server answered ${answer.status}`);
  config = await answer.json();
  // WebLLM takes a model's own address as it is, so it has to be a whole one.
  for (const one of config.model_list) {
    one.model = here(one.model);
    one.model_lib = here(one.model_lib);
  }
  at("models").append(...config.model_list.map((one) => new Option(one.model_id.replace(/-MLC$/, ""), one.model_id)));
  at("picker").hidden = config.model_list.length < 2;
  at("only").textContent = config.model_list.length < 2 ? at("models").selectedOptions[0].text : "";
  await requireGraphics();
  webllm = await import("./web-llm/index.js");
  await offer();
}

// What is known to fail is said before anything is downloaded.
async function requireGraphics() {
  if (!navigator.gpu) {
    throw named(window.isSecureContext ? "WebGPUNotAvailableError" : "NotSecure", "navigator.gpu is not there");
  }
  if (!(await navigator.gpu.requestAdapter())) throw named("WebGPUNotFoundError", "requestAdapter() gives null");
}

async function requireFitting(one) {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  for (const feature of one.required_features ?? []) {
    if (!adapter.features.has(feature)) throw named("FeatureSupportError", `the adapter lacks ${feature}`);
  }
  const limit = adapter.limits.maxStorageBufferBindingSize;
  if (one.buffer_size_required_bytes > limit) {
    throw named("BufferLimit", `buffers of ${one.buffer_size_required_bytes} bytes are needed, ${limit} is the limit`);
  }
}

// Shows what loading the chosen model costs; a model that is here already is loaded at once.
async function offer() {
  const one = record();
  loaded = false;
  show();
  at("need").textContent =
    `Downloads ${megabytes(one.download_size_bytes)} once, and needs about ` +
    `${megabytes(one.vram_required_MB * 2 ** 20)} of graphics memory.`;
  at("start").disabled = true;
  await requireFitting(one);
  at("start").disabled = false;
  if (await known(one)) await load();
}

// A browser keeps files by their address, so what an earlier package left at the same address has to be replaced.
const key = (one) => `kept ${one.model} ${one.model_id}`;
const parts = (one) => ({ config: one.integrity.config, library: one.integrity.model_lib, weights: one.version });
const kept = (one) => JSON.parse(localStorage.getItem(key(one)) ?? "null");
const known = async (one) => kept(one)?.weights === one.version && webllm.hasModelInCache(one.model_id, config);

async function renew(one) {
  const before = kept(one), now = parts(one);
  if (!before) return;
  const root = one.model.replace(/\/?$/, "/resolve/main/");
  if (before.config !== now.config) await replace("webllm/config", root, ["mlc-chat-config.json"]);
  if (before.library !== now.library) await replace("webllm/wasm", one.model_lib, [""]);
  if (before.weights !== now.weights) {
    await replace("webllm/model", root, ["tensor-cache.json", ...Object.keys(one.integrity.tokenizer)]);
    const index = await (await fetch(new URL("tensor-cache.json", root))).json();
    await replace("webllm/model", root, index.records.map((shard) => shard.dataPath));
  }
}

// Puts files as the server has them now into a cache of WebLLM's.
async function replace(cache, root, names) {
  at("stage").textContent = "Updating the model";
  const place = await caches.open(cache);
  for (const name of names) {
    const address = new URL(name, root).href;
    const answer = await fetch(address, { cache: "no-cache" });
    if (!answer.ok) throw new Error(`${address}: the server answered ${answer.status}`);
    await place.put(address, answer);
  }
}

async function load() {
  const one = record();
  clearError();
  at("start").disabled = at("models").disabled = true;
  at("start").hidden = true;
  at("loading").hidden = false;
  at("bar").removeAttribute("value");
  at("stage").textContent = "Loading the library";
  try {
    engine ??= new webllm.MLCEngine({ appConfig: config, initProgressCallback: progress });
    await renew(one);
    await engine.reload(one.model_id);
    localStorage.setItem(key(one), JSON.stringify(parts(one)));
    loaded = true;
    await empty();
    at("question").focus();
  } finally {
    at("start").disabled = at("models").disabled = at("start").hidden = false;
    at("loading").hidden = true;
    show();
  }
}

function progress({ progress, text }) {
  const stage = text.startsWith("Fetching") ? "Downloading the model"
    : text.startsWith("Loading GPU") ? "Preparing the graphics processor"
    : "Loading the model";
  at("bar").value = Math.round(progress * 100);
  at("stage").textContent = `${stage}: ${Math.round(progress * 100)} %`;
}

async function ask(question) {
  clearError();
  talk.push({ role: "user", content: question });
  say("user", question);
  const item = say("assistant", "");
  item.classList.add("writing");
  item.setAttribute("aria-busy", "true");
  writing = true;
  show();
  let text = "", why = "", usage;
  try {
    const stream = await engine.chat.completions.create({
      messages: talk, stream: true, stream_options: { include_usage: true },
    });
    for await (const piece of stream) {
      text += piece.choices[0]?.delta.content ?? "";
      why = piece.choices[0]?.finish_reason ?? why;
      usage = piece.usage ?? usage;
      render(item.querySelector(".text"), text);
      follow();
    }
    talk.push({ role: "assistant", content: text });
    const speed = usage?.extra?.decode_tokens_per_s;
    const notes = [why === "abort" && "stopped", why === "length" && "cut off: the conversation is full",
      speed && `${Number(speed.toPrecision(2))} tokens a second`].filter(Boolean);
    item.append(note(notes.join(", ")));
  } catch (error) {
    // The question can be asked again: neither it nor half an answer stays in the conversation.
    talk.pop();
    item.remove();
    throw error;
  } finally {
    item.classList.remove("writing");
    item.removeAttribute("aria-busy");
    writing = false;
    show();
    at("question").focus();
  }
}

function say(role, text) {
  const item = document.createElement("li");
  item.className = role;
  const who = document.createElement("span");
  who.className = "unseen";
  who.textContent = role === "user" ? "You: " : "Answer: ";
  const body = document.createElement("div");
  body.className = "text";
  render(body, text);
  item.append(who, body);
  at("talk").append(item);
  follow();
  return item;
}

function note(text) {
  const small = document.createElement("small");
  small.className = "note";
  small.textContent = text;
  return small;
}

// Code and bold words of Markdown; all else stays the text that it is.
function render(place, text) {
  place.replaceChildren();
  text.split(/```(?:[\w+-]*\n)?/).forEach((part, number) => {
    if (number % 2) {
      const block = document.createElement("pre");
      block.append(element("code", part.replace(/\n$/, "")));
      place.append(block);
    } else {
      for (const piece of part.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
        place.append(piece.startsWith("`") && piece.length > 2 ? element("code", piece.slice(1, -1))
          : piece.startsWith("**") && piece.length > 4 ? element("strong", piece.slice(2, -2)) : piece);
      }
    }
  });
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function follow() {
  const view = document.querySelector("main");
  view.scrollTop = view.scrollHeight;
}

async function empty() {
  talk.length = 0;
  at("talk").replaceChildren();
  if (loaded) await engine.resetChat();
}

function show() {
  at("load").hidden = loaded;
  at("question").disabled = !loaded || writing;
  at("send").disabled = !loaded || writing;
  at("send").hidden = writing;
  at("stop").hidden = !writing;
  at("anew").disabled = !loaded || writing;
  at("models").disabled = writing;
}

const named = (name, message) => Object.assign(new Error(message), { name });

// Errors by their name in WebLLM or the browser: what happened, and what helps.
const WORDS = {
  NotSecure: ["This page cannot use the graphics processor from this address.",
    "Browsers allow it for https:// and for http://localhost only. Open the page at such an address."],
  WebGPUNotAvailableError: ["This browser cannot run the model: it has no WebGPU.",
    "Use a current Chrome, Edge, Safari or Firefox on a machine with a graphics processor."],
  WebGPUNotFoundError: ["The browser finds no graphics processor that it can use.",
    "Turn on hardware acceleration in the browser's settings, update the graphics driver, or try another browser."],
  FeatureSupportError: ["This graphics processor lacks something that the model needs.",
    "Choose a model whose name has f32, or use another machine."],
  BufferLimit: ["This graphics processor cannot hold the model's largest part.",
    "Choose a smaller model, or use another machine."],
  IntegrityError: ["A file of the model is not the one that this page was made with, so it is not used.",
    "Reload the page. If that does not help, the copy on the server is damaged or was changed: upload the package again."],
  DeviceLostError: ["The graphics processor gave up. Most likely it has too little memory for this model.",
    "Close other pages and programs, choose a smaller model, and reload the page."],
  OutOfMemory: ["There is too little memory for this model.",
    "Close other pages and programs, choose a smaller model, and reload the page."],
  ContextWindowSizeExceededError: ["The message is too long for this model.", "Write a shorter one, or begin a new chat."],
  QuotaExceededError: ["The browser has too little space to keep the model.",
    "Free some space on the disk, or leave the private window."],
  Network: ["A file of the model could not be downloaded.",
    "Check the network and that the server has all files of the package, then try again."],
};

function explained(error) {
  const text = String(error?.message ?? error);
  if (error?.name === "ShaderF16SupportError") return WORDS.FeatureSupportError;
  if (error?.name in WORDS) return WORDS[error.name];
  if (/Unable to find a compatible GPU/.test(text)) return WORDS.WebGPUNotFoundError;
  if (/out of memory|allocation failed|maxBufferSize|maxStorageBufferBindingSize/i.test(text)) return WORDS.OutOfMemory;
  if (/quota/i.test(text)) return WORDS.QuotaExceededError;
  if (/fetch|network|the server answered|'Cache'/i.test(text)) return WORDS.Network;
  return ["Something went wrong.", "Reload the page and try again."];
}

function report(error) {
  console.error(error);
  const [title, advice] = explained(error);
  at("error-title").textContent = title;
  at("error-advice").textContent = advice;
  at("error-details").textContent = `${error?.name ?? "Error"}: ${error?.message ?? error}`;
  at("error").hidden = false;
  at("error").scrollIntoView({ block: "nearest" });
}

function clearError() {
  at("error").hidden = true;
}

function grow() {
  const box = at("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

const reported = (action) => (...given) => Promise.resolve(action(...given)).catch(report);

at("start").addEventListener("click", reported(load));
at("models").addEventListener("change", reported(async () => { clearError(); await empty(); await offer(); }));
at("anew").addEventListener("click", reported(empty));
at("stop").addEventListener("click", () => engine.interruptGenerate());
at("question").addEventListener("input", grow);
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("composer").requestSubmit();
  }
});
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (!question || !loaded || writing) return;
  at("question").value = "";
  grow();
  reported(ask)(question);
});
addEventListener("unhandledrejection", (event) => report(event.reason));

reported(start)();
