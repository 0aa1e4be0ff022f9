#!/usr/bin/env node
// Runs the program of this platform's package, which npm installed beside this one: nothing is fetched here, and
// nothing runs at installation. Exit code and signal are the program's own.
"use strict";

const { spawnSync } = require("node:child_process");
const os = require("node:os");

function platform() {
  const base = `${process.platform}-${process.arch}`;
  if (process.platform !== "linux") {
    return base;
  }
  // Addresses of this machine are no part of the question, and take long to look up.
  process.report.excludeNetwork = true;
  const glibc = process.report.getReport().header.glibcVersionRuntime;
  return glibc ? base : `${base}-musl`;
}

function fail(message) {
  const wantsJson = process.argv.includes("--json") || process.env.TOKENROUTE_JSON === "1";
  const error = { message, type: "installation_error", code: null, param: null, metadata: { reason: "installation" } };
  console.error(wantsJson ? JSON.stringify({ error }) : `error: ${message}`);
  process.exit(1);
}

function program() {
  const name = `@tokenroute/${platform()}`;
  const file = process.platform === "win32" ? "tokenroute.exe" : "tokenroute";
  try {
    return require.resolve(`${name}/bin/${file}`);
  } catch {
    return fail(
      `${name} is not installed. If npm was told to leave optional dependencies out, install again without ` +
        "--omit=optional; if there is no such package, this platform is not supported: pipx install tokenroute",
    );
  }
}

const ended = spawnSync(program(), process.argv.slice(2), { stdio: "inherit" });
if (ended.error) {
  fail(`the program cannot be run: ${ended.error.message}`);
}
if (ended.signal) {
  process.exitCode = 128 + os.constants.signals[ended.signal];
  process.kill(process.pid, ended.signal);
} else {
  process.exitCode = ended.status;
}
