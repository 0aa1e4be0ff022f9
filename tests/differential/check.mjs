// Compares what we found in request bodies with what Node's JSON.parse finds.
//
// `node check.mjs RECORDS VERDICTS` reads the records that the example `bodies` of tokenroute-fuzz
// writes, and writes one byte a body: 1 if Node takes it, else 0. It fails if we are wrong about one.
// Duplicate keys are not its business: JSON.parse does not show them.

import { readFileSync, writeFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

const CAPS = ["max_tokens", "max_completion_tokens"];
const COUNTS = [...CAPS, "n", "best_of"];
const CONTINUE = { continue_final_message: true, add_generation_prompt: false };
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function parse(bytes) {
  try {
    return { value: JSON.parse(decoder.decode(bytes)) };
  } catch {
    return null;
  }
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const has = (object, key) => Object.hasOwn(object, key);

function describeFlag(value) {
  if (value === null) return "null";
  return typeof value === "boolean" ? String(value) : "other";
}

function describeModel(value) {
  if (typeof value !== "string") return "not text";
  return value.isWellFormed() ? { text: value } : "unpaired";
}

function describeOptions(value) {
  if (value === null) return "null";
  if (!isObject(value)) return "other";
  const usage = has(value, "include_usage") ? describeFlag(value.include_usage) : null;
  return { empty: Object.keys(value).length === 0, include_usage: usage };
}

// Node's numbers are doubles: an integer of ours is compared as one, and any other number is not.
function countDiffers(value, ours) {
  if (value === null) return ours !== "null";
  if (typeof value !== "number") return ours !== "other";
  return ours !== "other" && !Object.is(value, Number(ours));
}

// A key as readers see it that match keys whatever their case.
const fold = (key) =>
  key.replace(/[A-Z]/g, (letter) => letter.toLowerCase()).replace(/\u017f/g, "s").replace(/\u212a/g, "k");

function findDifference(document, found) {
  const list = Array.isArray(document.messages) ? { empty: document.messages.length === 0 } : null;
  if (!isDeepStrictEqual(list, found.messages)) return `messages is ${JSON.stringify(list)}`;
  const describe = { model: describeModel, stream: describeFlag, stream_options: describeOptions };
  for (const [key, write] of Object.entries(describe)) {
    const theirs = has(document, key) ? write(document[key]) : null;
    if (!isDeepStrictEqual(theirs, found[key])) return `${key} is ${JSON.stringify(theirs)}`;
  }
  for (const key of COUNTS) {
    if (has(document, key) !== (found[key] !== null)) return `${key} is there for one only`;
    if (has(document, key) && countDiffers(document[key], found[key])) {
      return `${key} is ${document[key]}`;
    }
  }
  return null;
}

// What the upstream should see.
function expected(document, found) {
  const copy = Object.assign(Object.create(null), document);
  if (has(document, "model")) copy.model = found.upstream_model;
  if (found.output_tokens_max !== null) {
    const given = CAPS.filter((key) => /^[0-9]+$/.test(found[key] ?? ""));
    for (const key of given) copy[key] = Math.min(copy[key], found.output_tokens_max);
    if (given.length === 0 && found.output_cap !== null && has(document, "model")) {
      copy[found.output_cap] = found.output_tokens_max;
    }
  }
  if (found.messages && found.prefill) {
    const { text, form } = found.prefill;
    const marked = form === "prefix" || form === "partial" ? { [form]: true } : {};
    copy.messages = [...document.messages, { role: "assistant", content: text, ...marked }];
    if (form === "continue") {
      const keys = Object.keys(document).map(fold);
      for (const [key, value] of Object.entries(CONTINUE)) {
        if (!keys.includes(key)) copy[key] = value;
      }
    }
  }
  if (!found.include_usage || document.stream !== true) return copy;
  const options = has(document, "stream_options") ? document.stream_options : null;
  if (options === null) {
    copy.stream_options = { include_usage: true };
  } else if (isObject(options)) {
    const usage = has(options, "include_usage") ? options.include_usage : null;
    if (usage === null || usage === false) {
      copy.stream_options = { ...options, include_usage: true };
    }
  }
  return copy;
}

function check(body, found, sent, taken) {
  if (found.verdict !== "ok") return null;
  if (!taken) return "Node refuses it";
  if (!isObject(taken.value)) return "it is no object";
  const difference = findDifference(taken.value, found);
  if (difference) return difference;
  const parsed = parse(sent);
  if (!parsed) return "Node refuses what we send";
  const seen = Object.assign(Object.create(null), parsed.value);
  if (!isDeepStrictEqual(seen, expected(taken.value, found))) return "what we send means another thing";
  return null;
}

const [recordsPath, verdictsPath] = process.argv.slice(2);
const records = readFileSync(recordsPath);
const verdicts = [];
let failed = 0;
for (let at = 0; at < records.length; ) {
  const texts = [0, 1, 2].map(() => {
    const length = records.readUInt32LE(at);
    at += 4 + length;
    return records.subarray(at - length, at);
  });
  const [body, findings, sent] = texts;
  const found = JSON.parse(findings.toString("utf8"));
  const taken = parse(body);
  verdicts.push(taken ? "1" : "0");
  const wrong = check(body, found, sent, taken);
  if (wrong && failed++ < 10) {
    console.error(`Node: ${wrong}\n  found ${findings}\n  body  ${body.toString("hex")}`);
    console.error(`  sent  ${sent.toString("hex")}`);
  }
}
writeFileSync(verdictsPath, verdicts.join(""));
process.exitCode = failed > 0 ? 1 : 0;
