#!/usr/bin/env bash
# WebLLM resolves a relative model_lib of a model record against the page, and refuses a relative model in the same record.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
npm install --silent --no-save --prefix "$place" @mlc-ai/web-llm@0.2.86
cat > check.mjs <<'JS'
import { readFileSync } from "node:fs";
import { MLCEngine } from "@mlc-ai/web-llm";

// A page at this address, whose files are asked for and never there but for the model's configuration.
const page = "https://page.example/app/";
globalThis.document = { URL: page };
globalThis.location = new URL(page);
const kept = new Map();
const key = (request) => String(request.url ?? request);
const cache = {
  match: async (request) => kept.get(key(request))?.clone(),
  add: async (request) => kept.set(key(request), await fetch(request)),
  put: async (request, response) => kept.set(key(request), response),
};
globalThis.caches = { open: async () => cache, has: async () => false };
let asked = [];
globalThis.fetch = async (request) => {
  const url = key(request);
  asked.push(url);
  if (url.endsWith("mlc-chat-config.json")) return new Response(JSON.stringify({ conv_template: {}, context_window_size: 128 }));
  throw new Error("no further file");
};

async function reload(model, model_lib) {
  asked = [];
  const appConfig = { model_list: [{ model_id: "m", model, model_lib }], cacheBackend: "cache" };
  try {
    await new MLCEngine({ appConfig, logLevel: "SILENT" }).reload("m");
    return "loaded";
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

const version = JSON.parse(readFileSync("node_modules/@mlc-ai/web-llm/package.json", "utf8")).version;
console.log("@mlc-ai/web-llm", version, "node", process.version);
console.log("expected   both addresses of a record are taken relative to the page, or neither is");
await reload(`${page}models/m/`, "libs/m.wasm");
const library = asked.find((url) => url.endsWith(".wasm"));
console.log(`seen       model_lib "libs/m.wasm" is fetched from ${library}`);
const answer = await reload("models/m/", "libs/m.wasm");
console.log(`seen       model "models/m/" ends in ${answer}, after ${asked.length} requests`);
if (library !== `${page}libs/m.wasm`) throw new Error("a relative model_lib is no longer resolved against the page");
if (!answer.startsWith("TypeError: Invalid URL") || asked.length !== 0) throw new Error("a relative model is treated otherwise now");
JS
node check.mjs
