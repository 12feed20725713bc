// Compile WGSL with Dawn, the WebGPU implementation of Chromium, on a device that executes nothing but allows 16-bit
// floats: node validate_wgsl.mjs DIRECTORY prints a JSON object of file name to what is wrong in it.
import { readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [directory, modules] = process.argv.slice(2);
const { create, globals } = await import(pathToFileURL(join(modules, "webgpu", "index.js")));
Object.assign(globalThis, globals);
// The instance is kept: without it no promise is ever fulfilled.
globalThis.instance = create(["backend=null"]);
const adapter = await instance.requestAdapter();
const device = await adapter.requestDevice({ requiredFeatures: ["shader-f16", "subgroups"] });
const wrong = {};
for (const name of readdirSync(directory).sort()) {
  const module = device.createShaderModule({ code: readFileSync(join(directory, name), "utf8") });
  const { messages } = await module.getCompilationInfo();
  const errors = messages.filter(message => message.type === "error");
  if (errors.length !== 0) wrong[name] = errors.map(message => `${message.lineNum}: ${message.message}`);
}
// On a line of its own: Dawn writes what it finds to the same place.
writeSync(1, "\n" + JSON.stringify(wrong));
// Dawn's threads keep Node alive, and do not always end well.
process.kill(process.pid, "SIGKILL");
