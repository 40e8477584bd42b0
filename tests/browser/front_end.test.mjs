// The official front end against a running server: everything a user does in the first minutes.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { browse, eventually, frontEnd, look, project, serve } from "./lattice.mjs";

let server;
let browser;
let page;

// A user who has been here before: the front end logs what a new one does not have as failures to load, and version
// 1.27.10 fails to set the navigation mode the first time, whichever server it talks to.
function settleIn(base) {
  const user = join(base, "user/default");
  mkdirSync(join(user, "workflows"), { recursive: true });
  mkdirSync(join(user, "subgraphs"));
  writeFileSync(join(user, "workflows/.index.json"), JSON.stringify({ bookmarks: [] }));
  writeFileSync(join(user, "user.css"), "");
  writeFileSync(join(user, "comfy.templates.json"), "[]");
  const settings = { "Comfy.TutorialCompleted": true, "Comfy.Canvas.NavigationMode": "custom" };
  writeFileSync(join(user, "comfy.settings.json"), JSON.stringify(settings));
}

async function load() {
  await page.goto(server.address);
  await page.waitForFunction(() => window.app?.graph && window.app.extensionManager);
  await page.getByRole("button", { name: "Run", exact: true }).first().waitFor();
}

/** Drops a workflow file onto the graph. */
async function drop(name, workflow) {
  await page.evaluate(
    ([name, text]) => {
      const data = new DataTransfer();
      data.items.add(new File([text], name, { type: "application/json" }));
      const at = { dataTransfer: data, bubbles: true, cancelable: true, clientX: 600, clientY: 400 };
      const canvas = document.querySelector("#graph-canvas");
      for (const kind of ["dragenter", "dragover", "drop"]) canvas.dispatchEvent(new DragEvent(kind, at));
    },
    [name, JSON.stringify(workflow)],
  );
  const wanted = workflow.nodes.length;
  await page.waitForFunction((wanted) => window.app.graph.nodes.length === wanted, wanted);
}

const example = () => JSON.parse(readFileSync(project("examples/emoji.workflow.json"), "utf8"));
const run = () => page.getByRole("button", { name: "Run", exact: true }).first().click();
const get = async (path) => (await fetch(server.address + path)).json();
const ended = async () => Object.values(await get("/api/history"));

before(async () => {
  server = await serve("--front-end", frontEnd(), "--preview-method", "auto");
  settleIn(server.base);
  browser = await browse();
  page = browser.page;
  // Nothing but this server is asked.
  await page.route(/^https?:\/\/(?!127\.0\.0\.1)/, (route) => route.fulfill({ json: [] }));
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

test("the page loads without errors", async () => {
  await load();
  await look(page, "loaded");
  assert.deepEqual(browser.errors, []);
});

test("a dropped workflow runs, with progress and previews, and its picture appears", async () => {
  await drop("emoji.json", example());
  const titles = page.evaluate(
    () =>
      new Promise((seen) => {
        new MutationObserver(() => /\[\d+%\].*KSampler/.test(document.title) && seen(document.title)).observe(
          document.querySelector("title"),
          { childList: true },
        );
      }),
  );
  await run();
  assert.match(await titles, /KSampler/);
  await page.waitForFunction(() => Object.keys(window.app.nodePreviewImages ?? {}).length > 0);
  await page.waitForFunction(() =>
    window.app.graph.nodes.some((node) => node.type === "SaveImage" && node.imgs?.[0]?.naturalWidth === 128),
  );
  await look(page, "picture");
  const [entry] = await eventually(async () => (await ended()).length > 0 && ended(), "the history");
  assert.equal(entry.status.status_str, "success");
  assert.deepEqual(browser.errors, []);
});

test("the queue shows results, and what runs can be cancelled", async () => {
  await page.locator(".queue-tab-button").click();
  const picture = page.locator(".sidebar-content-container img").first();
  await picture.waitFor();
  assert.match(await picture.getAttribute("src"), /\/api\/view\?.*emoji_00001_/);
  const long = example();
  const sampler = long.nodes.find((node) => node.type === "KSampler");
  sampler.widgets_values[sampler.widgets_values.indexOf(20)] = 10000;
  await drop("long.json", long);
  await run();
  await eventually(async () => (await get("/api/queue")).queue_running.length === 1, "a running prompt");
  await run();
  await eventually(async () => (await get("/api/queue")).queue_pending.length === 1, "a waiting prompt");
  await page.getByRole("button", { name: "Clear Pending Tasks" }).click();
  await eventually(async () => (await get("/api/queue")).queue_pending.length === 0, "an empty queue");
  await look(page, "queue");
  await page.getByRole("button", { name: "Cancel current run" }).click();
  const entries = await eventually(async () => (await ended()).length === 2 && ended(), "the history");
  assert.equal(entries[1].status.completed, false);
  assert.equal(entries[1].status.messages.at(-1)[0], "execution_interrupted");
});

test("settings and a saved workflow survive a reload", async () => {
  await page.locator(".queue-tab-button").click();
  await drop("emoji.json", example());
  await page.getByTestId("close-minmap-button").click();
  await eventually(async () => (await get("/api/settings"))["Comfy.Minimap.Visible"] === false, "the setting");
  await page.keyboard.press("Control+s");
  const name = page.getByRole("dialog").getByRole("textbox");
  await name.fill("a cat");
  await page.keyboard.press("Enter");
  await eventually(async () => (await fetch(`${server.address}/api/userdata/workflows%2Fa%20cat.json`)).ok, "the file");
  browser.errors.length = 0;
  await load();
  assert.equal(await page.getByTestId("close-minmap-button").count(), 0);
  await page.locator(".workflows-tab-button").click();
  await page.getByText("a cat", { exact: false }).last().waitFor();
  await page.locator(".queue-tab-button").click();
  await page.locator(".sidebar-content-container img").first().waitFor();
  await look(page, "reloaded");
  assert.deepEqual(browser.errors, []);
});
