// What goes on, as /ws tells it; lists are read again when the queue changes.

const $ = (id) => document.getElementById(id);
const get = async (path) => (await fetch(path)).json();
const post = (path, body) =>
  fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

const SHOWN = 24;
const RETRY_MS = 2000;
let previewUrl = null;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function showRunning(item) {
  $("running").textContent = item ? `Prompt ${item[1]}` : "Nothing is running.";
  $("interrupt").hidden = !item;
  if (!item) {
    $("progress").hidden = true;
    $("node").textContent = "";
    showPreview(null);
  }
}

function showProgress(nodes) {
  const running = Object.values(nodes).find((node) => node.state === "running");
  $("progress").hidden = !running;
  if (running) {
    $("progress").max = running.max || 1;
    $("progress").value = running.value;
    $("node").textContent = `Node ${running.display_node_id}: ${running.value} of ${running.max}`;
  }
}

function showPreview(blob) {
  if (previewUrl) URL.revokeObjectURL(previewUrl);
  previewUrl = blob && URL.createObjectURL(blob);
  $("preview").hidden = !previewUrl;
  if (previewUrl) $("preview").firstElementChild.src = previewUrl;
}

async function showQueue() {
  const { queue_running: running, queue_pending: waiting } = await get("/queue");
  showRunning(running[0]);
  $("waiting").textContent = waiting.length;
  $("clear").hidden = waiting.length === 0;
  const items = waiting.slice(0, SHOWN).map(([number, id]) =>
    element(
      "li",
      {},
      element("span", { className: "quiet", textContent: number }),
      element("span", { className: "id", textContent: id }),
    ),
  );
  if (waiting.length > SHOWN) {
    items.push(element("li", { className: "quiet", textContent: `and ${waiting.length - SHOWN} more` }));
  }
  $("queue").replaceChildren(...items);
}

function result([id, entry]) {
  const files = Object.values(entry.outputs).flatMap((output) => output.images ?? []);
  const title = element("small", { textContent: files[0]?.filename ?? id, title: id });
  if (files.length === 0) {
    const failed = !entry.status.completed;
    const text = failed ? "failed" : "no picture";
    return element("li", {}, element("div", { className: failed ? "none failed" : "none", textContent: text }), title);
  }
  const where = new URLSearchParams(files[0]);
  const image = element("img", { alt: files[0].filename, loading: "lazy", src: `/view?${where}&preview=webp` });
  return element("li", {}, element("a", { href: `/view?${where}` }, image), title);
}

async function showHistory() {
  const entries = Object.entries(await get(`/history?max_items=${SHOWN}`));
  $("history").replaceChildren(...entries.reverse().map(result));
}

async function showSystem() {
  const { system } = await get("/system_stats");
  const gigabytes = (bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const facts = {
    Version: system.python_version,
    Speaks: `ComfyUI ${system.comfyui_version}`,
    Memory: `${gigabytes(system.ram_free)} free of ${gigabytes(system.ram_total)}`,
  };
  $("system").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: value }),
    ]),
  );
}

// Changes come in bursts; one request at a time is enough to follow them.
function following(show) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      try {
        await show();
      } catch (error) {
        console.warn(error);
      }
    }
    running = false;
  };
}

const followQueue = following(showQueue);
const followHistory = following(showHistory);

function hear({ type, data }) {
  if (type === "status") {
    followQueue();
    followHistory();
  } else if (type === "progress_state") {
    showProgress(data.nodes);
  }
}

// Image type and picture follow the four bytes that say what the message is: 1 = a picture.
function hearBinary(buffer) {
  const head = new DataView(buffer);
  if (buffer.byteLength > 8 && head.getUint32(0) === 1) {
    const type = head.getUint32(4) === 2 ? "image/png" : "image/jpeg";
    showPreview(new Blob([buffer.slice(8)], { type }));
  }
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    $("connection").textContent = "connected";
    $("connection").className = "on";
    showSystem();
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : hearBinary(data));
  socket.onclose = () => {
    $("connection").textContent = "not connected";
    $("connection").className = "off";
    setTimeout(connect, RETRY_MS);
  };
}

$("interrupt").onclick = () => post("/interrupt", {});
$("clear").onclick = () => post("/queue", { clear: true });
connect();
