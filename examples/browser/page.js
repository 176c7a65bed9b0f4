// The page: pictures are dropped, chosen or pasted, and captioned one after the other, the newest on top.

import { Captioner } from "./captioner.js";

const find = (id) => document.getElementById(id);
const folder = new URL(`${new URLSearchParams(location.search).get("model") ?? "model"}/`, location.href);
const waiting = [];
let busy = true; // until the model is there
let broken = false; // there will be none
let captioner = null;

find("choose").addEventListener("click", () => find("files").click());
find("files").addEventListener("change", ({ target }) => {
  add(target.files);
  target.value = ""; // the same picture may be chosen again
});
addEventListener("paste", ({ clipboardData }) => add(clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  add(event.dataTransfer.files);
});

function add(files) {
  if (!broken) {
    waiting.push(...[...files].map((file) => ({ file, row: show(file) })));
    captionWaiting();
  }
}

async function captionWaiting() {
  if (busy) {
    return;
  }
  busy = true;
  while (waiting.length) {
    const { file, row } = waiting.shift();
    const text = row.querySelector(".caption");
    try {
      text.textContent = (await captioner.caption(file)) || "(an empty caption)";
    } catch (error) {
      const reason = error instanceof DOMException ? "it is no picture that this browser reads" : error.message;
      text.textContent = `No caption: ${reason}.`;
      text.className = "caption problem";
    }
    row.removeAttribute("aria-busy");
  }
  busy = false;
}

/** Show a picture whose caption is still to come. */
function show(file) {
  const row = document.createElement("li");
  row.setAttribute("aria-busy", "true");
  row.innerHTML = '<figure><img alt=""><figcaption><p class="caption" dir="auto">…</p><p class="name"></p></figcaption></figure>';
  const image = row.querySelector("img");
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => {
    URL.revokeObjectURL(image.src);
    image.outerHTML = '<div class="nothing"></div>';
  };
  row.querySelector(".name").textContent = file.name;
  find("pictures").prepend(row);
  return row;
}

try {
  if (folder.origin !== location.origin) {
    throw new Error("it is on another host");
  }
  captioner = await Captioner.load(folder);
  const { run, step } = captioner.config.img2seq;
  find("state").textContent = `Ready. The model is step ${step.toLocaleString("en")} of ${run}.`;
  find("choose").disabled = false;
  busy = false;
  captionWaiting();
} catch (error) {
  broken = true;
  find("pictures").replaceChildren();
  find("state").textContent = "";
  find("problem").textContent = `No model could be loaded from ${folder.pathname}: ${error.message}.`;
}
