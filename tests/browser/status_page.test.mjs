// The page that is served when there is no front end.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { browse, look, project, serve } from "./lattice.mjs";

test("the status page follows what goes on", async () => {
  const server = await serve("--preview-method", "auto");
  const { page, errors, close } = await browse();
  try {
    await page.goto(server.address);
    await page.locator("#connection.on").waitFor();
    await page.getByText("Nothing waits.").or(page.locator("#queue:empty")).first().waitFor();
    const prompt = JSON.parse(readFileSync(project("examples/emoji.json"), "utf8"));
    const queue = (steps) => {
      const body = structuredClone({ prompt });
      body.prompt["3"].inputs.steps = steps;
      return fetch(`${server.address}/prompt`, { method: "POST", body: JSON.stringify(body) });
    };
    await queue(10);
    await page.locator("#history img").first().waitFor();
    await queue(9999);
    await queue(9998);
    await page.locator("#preview img").waitFor();
    await page.locator("#progress").waitFor();
    await page.locator("#queue li").first().waitFor();
    await look(page, "status");
    await page.getByRole("button", { name: "Clear the queue" }).click();
    await page.locator("#queue li").first().waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Interrupt" }).click();
    await page.getByText("Nothing is running.").waitFor();
    await page.locator("#history .failed").waitFor();
    await look(page, "status-after");
    assert.deepEqual(errors, []);
  } finally {
    await close();
    await server.stop();
  }
});
