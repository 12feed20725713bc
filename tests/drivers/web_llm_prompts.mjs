// The parts of prompts as WebLLM's Conversation makes them, which it encodes one by one.
//
// standard input: {"package": the path of its index.js, "cases": [{"template", "system", "turns": [[role, text or null], …]}]}
// standard output: a list of parts for each case
import { readFileSync } from "node:fs";

const { package: path, cases } = JSON.parse(readFileSync(0, "utf-8"));
const source = readFileSync(path, "utf-8");

// The package exports engines only, so the class is taken out of its bundle, with the two enumerations that it uses.
function piece(pattern) {
  const found = source.match(pattern);
  if (found === null) throw new Error(`${path} has no ${pattern}`);
  return found[0];
}

const Conversation = new Function(
  [
    piece(/^var Role;[\s\S]*?^\}\)\(Role .*$/m),
    piece(/^var MessagePlaceholders;[\s\S]*?^\}\)\(MessagePlaceholders .*$/m),
    piece(/^class Conversation \{[\s\S]*?^\}$/m),
    "return Conversation;",
  ].join("\n"),
)();

const answers = cases.map(({ template, system, turns }) => {
  const conversation = new Conversation(template);
  if (system !== null) conversation.override_system_message = system;
  for (const [role, text] of turns) {
    if (text === null) conversation.appendReplyHeader(role);
    else conversation.appendMessage(role, text);
  }
  return conversation.getPromptArray();
});
console.log(JSON.stringify(answers));
