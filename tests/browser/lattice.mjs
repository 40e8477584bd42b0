// A running server and a browser for it.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));

export const project = (path) => join(here, "../..", path);

/** The official front end, from PyPI; installed beside this file. */
export function frontEnd() {
  const target = join(here, "front-end");
  const folder = join(target, "comfyui_frontend_package/static");
  if (!existsSync(join(folder, "index.html"))) {
    const wanted = ["install", "--quiet", "--no-deps", "--target", target, "comfyui-frontend-package==1.27.10"];
    const { status } = spawnSync("python3", ["-m", "pip", ...wanted], { stdio: "inherit" });
    if (status !== 0) throw new Error("comfyui-frontend-package could not be installed");
  }
  return folder;
}

/** `lattice serve` on a folder of its own. */
export async function serve(...options) {
  const program = process.env.LATTICE ?? project("target/release/lattice");
  const base = mkdtempSync(join(tmpdir(), "lattice-browser-"));
  const args = ["serve", "--port", "0", "--base-dir", base, ...options];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const address = await new Promise((found, failed) => {
    child.once("exit", (code) => failed(new Error(`${program} ended with ${code}`)));
    lines.on("line", (line) => {
      const url = /http:\/\/\S+/.exec(line)?.[0];
      if (url) found(url);
    });
  });
  const stop = async () => {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await ended;
    rmSync(base, { recursive: true, force: true });
  };
  return { address, base, stop };
}

/** A browser that keeps what pages log as errors. */
export async function browse() {
  const folder = mkdtempSync(join(tmpdir(), "lattice-chromium-"));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    viewport: { width: 1280, height: 800 },
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  const page = context.pages()[0] ?? (await context.newPage());
  const errors = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`${message.text()} ${message.location().url}`);
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  const close = async () => {
    await context.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { page, errors, close };
}

/** Asks until the answer is not false, null or undefined. */
export async function eventually(ask, what) {
  const end = Date.now() + 120_000;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Where pictures of the pages go, when somebody wants to look at them. */
export async function look(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
}
