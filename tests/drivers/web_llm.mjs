// Ask WebLLM, as npm has it, in Node.js on Dawn, the WebGPU implementation of Chromium, with Vulkan below: the adapters of
// software that 16-bit floats need are found by Vulkan, and not by a headless browser.
//   node web_llm.mjs MODULES                  prints {adapter, features}, or null where there is no adapter
//   node web_llm.mjs MODULES RECORD REQUEST   loads the model of a record and prints {reply | error, adapter, shaders, wrong, buffers}
import { writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, record, request] = process.argv.slice(2);
const moduleOf = (...parts) => import(pathToFileURL(join(modules, ...parts)));
const { create, globals } = await moduleOf("webgpu", "index.js");
Object.assign(globalThis, globals);
const gpu = create(["backend=vulkan"]);
// Dawn's threads keep Node alive, and do not always end well.
const end = process.kill.bind(process, process.pid, "SIGKILL");
function finish(value) {
  // On a line of its own: WebLLM writes to the same place.
  writeSync(1, "\n" + JSON.stringify(value) + "\n");
  end();
}

const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
const name = adapter && `${adapter.info.vendor} ${adapter.info.description}`;
if (record === undefined) finish(adapter && { adapter: name, features: [...adapter.features] });

// What a page has and WebLLM uses, as far as Node lacks it.
const setGlobal = (key, value) => Object.defineProperty(globalThis, key, { value, configurable: true });
setGlobal("navigator", { gpu, userAgent: "node" });
setGlobal("window", globalThis);
setGlobal("location", new URL(JSON.parse(record).model));
class MemoryCache {
  #entries = new Map();
  async match(request) {
    return this.#entries.get(new Request(request).url)?.clone();
  }
  async put(request, response) {
    this.#entries.set(new Request(request).url, response.clone());
  }
  async add(request) {
    const response = await fetch(request);
    if (!response.ok) throw new TypeError(`${response.status} for ${new Request(request).url}`);
    await this.put(request, response);
  }
  async keys() {
    return [...this.#entries.keys()].map(url => new Request(url));
  }
}
const stores = new Map();
setGlobal("caches", {
  async open(name) {
    if (!stores.has(name)) stores.set(name, new MemoryCache());
    return stores.get(name);
  },
});

// What Dawn says is wrong, in a shader or with a call, is told to the device and nowhere else.
let shaders = 0;
const wrong = [];
const { createShaderModule } = GPUDevice.prototype;
GPUDevice.prototype.createShaderModule = function (descriptor) {
  shaders += 1;
  return createShaderModule.call(this, descriptor);
};
// The sizes of the buffers that are alive, and what they were at their most.
const buffers = { live: 0, peak: 0, largest: 0, created: 0 };
const { createBuffer } = GPUDevice.prototype;
GPUDevice.prototype.createBuffer = function (descriptor) {
  const buffer = createBuffer.call(this, descriptor);
  buffers.created += 1;
  buffers.live += buffer.size;
  buffers.peak = Math.max(buffers.peak, buffers.live);
  if (descriptor.usage & GPUBufferUsage.STORAGE) buffers.largest = Math.max(buffers.largest, buffer.size);
  return buffer;
};
const destroyed = new WeakSet();
const { destroy } = GPUBuffer.prototype;
GPUBuffer.prototype.destroy = function () {
  if (!destroyed.has(this)) buffers.live -= this.size;
  destroyed.add(this);
  return destroy.call(this);
};
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function (descriptor) {
  const device = await requestDevice.call(this, descriptor);
  device.addEventListener("uncapturederror", event => wrong.push(event.error.message));
  return device;
};

// WebLLM's loader takes whatever has this name for Node, and would then look for files instead of addresses.
delete globalThis.process;
const outcome = {};
try {
  const { CreateMLCEngine } = await moduleOf("@mlc-ai", "web-llm", "lib", "index.js");
  const engine = await CreateMLCEngine("it", { appConfig: { model_list: [JSON.parse(record)] } });
  outcome.reply = await engine.chat.completions.create(JSON.parse(request));
} catch (error) {
  outcome.error = String(error?.stack ?? error);
}
finish({ ...outcome, adapter: name, shaders, wrong: wrong.slice(0, 3), buffers });
