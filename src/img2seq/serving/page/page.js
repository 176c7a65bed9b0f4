// The page: pictures come in, wait in a queue, are captioned a few at a time, and show their captions or what went wrong.

import {openCamera} from "./camera.js";
import {toCsv} from "./csv.js";
import {captionOf, info, Problem, useKey} from "./server.js";
import {Settings, titleOf} from "./settings.js";
import {captionElement, certainty, moveBetweenWords, percent} from "./words.js";

const AT_A_TIME = 3;
const IS_PICTURE = /\.(jpe?g|png|webp|gif|bmp|tiff?|hei[cf]|avif|p[pgb]m)$/i;

const $ = (id) => document.getElementById(id);
const pictures = [];  // each with file, item, state (waiting, busy, done, failed), answer, problem, query
let server = null, settings = null, n_busy = 0, n_pasted = 0, needsKey = false;

// --- the server

async function start() {
  $("notice").hidden = true;
  try {
    server = await info();
  } catch (problem) {
    if (problem.status === 401) return askForKey(problem);
    const sentence = problem instanceof Problem ? problem.message : "The server cannot be reached: it has stopped, or the network is down.";
    $("notice-text").textContent = sentence;
    $("notice").hidden = false;
    if (problem.status === 503) setTimeout(start, 1000);  // the model is being loaded: seconds
    return;
  }
  needsKey = false;
  $("key-form").hidden = true;
  settings ??= new Settings(server.decoding, server.limits);  // what a person has chosen outlives a lost server
  const chosen = $("model").value;
  $("model").replaceChildren(...server.models.map(({name, is_default}) => new Option(name, name, is_default, name === chosen || (!chosen && is_default))));
  $("model-field").hidden = server.models.length < 2;
  showModel();
  work();
}

function model() {
  return server.models.find(({name}) => name === $("model").value) ?? server.models[0];
}

function showModel() {
  const {name, input, vocabulary_size, decoding_defaults} = model();
  settings.useDefaults(decoding_defaults ?? {});
  $("footer").textContent = `Model ${name}: pictures of ${input.width} × ${input.height} pixels, ${vocabulary_size.toLocaleString("en")} tokens. img2seq ${server.version}. Pictures go to this server and nowhere else.`;
}

function askForKey(problem) {
  if (!needsKey || !$("key-form").hidden) $("key-problem").textContent = $("key").value ? problem.message : "";
  needsKey = true;
  $("key-form").hidden = false;
  $("key").focus();
}

// --- the queue

function work() {
  while (server && !needsKey && n_busy < AT_A_TIME) {
    const next = pictures.find(({state}) => state === "waiting");
    if (!next) break;
    caption(next);
  }
  showProgress();
}

async function caption(picture) {
  n_busy++;
  const stopping = picture.stopping = new AbortController();
  show(picture, "busy", "Captioning …");
  try {
    const busy = (seconds) => show(picture, "busy", `The server is busy; asking again in ${seconds} s …`);
    const answer = await captionOf(picture.file, picture.query, {signal: stopping.signal, busy});
    Object.assign(picture, {answer, used: picture.query, problem: ""});
    show(picture, "done");
  } catch (problem) {
    if (!stopping.signal.aborted) {
      picture.problem = problem.message;
      show(picture, "failed");
      if (problem.status === 401) { askForKey(problem); show(picture, "waiting", "Waiting for the key"); }
    }
  } finally {
    n_busy--;
    announce(picture);
    work();
  }
}

function ask(some) {
  if (!some.length || (settings && !settings.check())) return;
  const query = {...(settings?.values() ?? {})};
  if ($("beginning").value.trim()) query.beginning = $("beginning").value;
  if (server?.models.length > 1) query.model = $("model").value;
  for (const picture of some) {
    picture.stopping?.abort();
    Object.assign(picture, {query, problem: ""});
    show(picture, "waiting", "Waiting");
  }
  work();
}

// --- pictures

function add(files) {
  const added = [...files].map((file) => {
    const item = $("picture").content.firstElementChild.cloneNode(true), picture = {file, item, state: "waiting"};
    const image = item.querySelector("img"), kind = item.querySelector(".kind");
    item.querySelector(".name").textContent = nameOf(file);
    kind.textContent = /\.(\w{1,5})$/.exec(file.name)?.[1].toUpperCase() ?? "?";
    kind.hidden = false;
    image.onload = () => { image.hidden = false; kind.hidden = true; };
    picture.url = image.src = URL.createObjectURL(file);
    item.querySelector(".copy").onclick = ({target}) => copy(picture.answer.captions[0].text, target);
    item.querySelector(".again").onclick = () => ask([picture]);
    item.querySelector(".remove").onclick = () => remove(picture);
    item.querySelectorAll("button").forEach((button) => button.setAttribute("aria-label", `${button.textContent}: ${nameOf(file)}`));
    $("pictures").append(item);
    return picture;
  });
  if (!added.length) return;
  pictures.push(...added);
  document.body.classList.add("has-pictures");
  $("results").hidden = false;
  ask(added);
  if (settings && !settings.check()) for (const picture of added) show(picture, "failed", "Not sent: a setting is out of range");
}

function remove(picture) {
  const next = picture.item.nextElementSibling ?? picture.item.previousElementSibling;
  picture.stopping?.abort();
  URL.revokeObjectURL(picture.url);
  picture.item.remove();
  pictures.splice(pictures.indexOf(picture), 1);
  if (!pictures.length) {
    document.body.classList.remove("has-pictures");
    $("results").hidden = true;
  }
  (next?.querySelector(".remove") ?? $("choose")).focus();
  work();
}

function show(picture, state, sentence = "") {
  picture.state = state;
  const {item, answer, problem, used} = picture, get = (name) => item.querySelector(name);
  item.classList.toggle("busy", state === "busy");
  item.setAttribute("aria-busy", String(state === "busy" || state === "waiting"));
  get(".state").textContent = sentence || (state === "failed" && answer ? "The caption above is an earlier one." : "");
  get(".problem").textContent = state === "failed" ? problem ?? "" : "";
  get(".again").hidden = state === "waiting" || state === "busy";
  get(".copy").hidden = !answer;
  if (state !== "done") return;
  const [best] = answer.captions, hasBeginning = Boolean(used.beginning);
  const others = best.alternatives.map((other) => {
    const line = document.createElement("li"), number = document.createElement("span");
    number.className = "percent";
    number.textContent = `${percent(certainty(other, hasBeginning))} %`;
    line.append(captionElement(other), number);
    return line;
  });
  get(".captions").replaceChildren(captionElement(best));
  if (others.length) {
    const title = document.createElement("p"), list = document.createElement("ol");
    title.className = "others";
    title.textContent = others.length === 1 ? "Another caption" : "Other captions";
    list.append(...others);
    get(".captions").append(title, list);
  }
  const how = Object.entries(used).filter(([name]) => name !== "beginning").map(([name, value]) => `${titleOf(name)} ${value}`);
  get(".about").textContent = [`${percent(certainty(best, hasBeginning))} % certain`, ...how].join(" · ");
}

function showProgress() {
  const n = (state) => pictures.filter((picture) => picture.state === state).length;
  const failed = n("failed") ? `, ${n("failed")} failed` : "";
  $("progress").textContent = `${n("done")} of ${pictures.length} captioned${failed}`;
  $("copy-all").disabled = $("download").disabled = !pictures.some(({answer}) => answer);
}

function announce(picture) {
  if (picture.state === "failed") say(`${nameOf(picture.file)}: ${picture.problem}`);
  else if (picture.state === "done" && pictures.length === 1) say(picture.answer.captions[0].text);
  else if (picture.state === "done" && !pictures.some(({state}) => state === "waiting" || state === "busy")) {
    showProgress();
    say($("progress").textContent);
  }
}

const nameOf = (file) => file.inFolder || file.webkitRelativePath || file.name;
const say = (text) => { $("said").textContent = text; };

// --- copy and download

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // of pages that are not of https:// or localhost
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const before = button.textContent;
  if (before === "Copied") return;
  button.textContent = "Copied";
  say("Copied");
  setTimeout(() => { button.textContent = before; }, 1500);
}

/** Return a row for each picture; the columns are those of `img2seq caption --output FILE.csv --probabilities`. */
function rows() {
  const captioned = pictures.filter(({answer}) => answer), failed = pictures.filter(({answer, problem}) => !answer && problem);
  const row = ({file, answer}) => {
    const [best] = answer.captions, found = {path: nameOf(file)};
    [best, ...best.alternatives].forEach((caption, i) => {
      found[i ? `caption_${i + 1}` : "caption"] = caption.text;
      found[i ? `log_probability_${i + 1}` : "log_probability"] = caption.log_probability;
    });
    return found;
  };
  return [...captioned.map(row), ...failed.map(({file, problem}) => ({path: nameOf(file), error: problem}))];
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([toCsv(rows())], {type: "text/csv"}));
  link.download = "captions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- ways in

/** Return the files of what was dropped; of folders, the pictures in them. */
async function dropped(transfer) {
  const entries = [...transfer.items].filter(({kind}) => kind === "file").map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  const found = await Promise.all(entries.map(([entry, file]) => entry?.isDirectory ? filesBelow(entry) : [file]));
  return found.flat().filter(Boolean);
}

async function filesBelow(folder) {
  const reader = folder.createReader(), read = (call) => new Promise(call), found = [];
  for (let part; (part = await read((done, failed) => reader.readEntries(done, failed))).length; ) {
    for (const entry of part) {
      if (entry.isDirectory) found.push(...await filesBelow(entry));
      else if (IS_PICTURE.test(entry.name)) {
        const file = await read((done, failed) => entry.file(done, failed));
        file.inFolder = entry.fullPath.slice(1);
        found.push(file);
      }
    }
  }
  return found.sort((a, b) => a.inFolder.localeCompare(b.inFolder, undefined, {numeric: true}));
}

function pasted({clipboardData}) {
  return [...clipboardData.files].map((file) => file.name === "image.png" ? new File([file], `pasted-${++n_pasted}.png`, {type: file.type}) : file);
}

$("choose").onclick = () => $("files").click();
$("files").onchange = ({target}) => { add(target.files); target.value = ""; };
$("take").onclick = () => openCamera((file) => add([file]));
document.addEventListener("paste", (event) => {
  const isText = event.target.matches?.("input") && event.clipboardData.types.includes("text/plain");  // office programs give a picture of it, too
  if (isText || !event.clipboardData.files.length) return;
  event.preventDefault();
  add(pasted(event));
});
let n_inside = 0;  // dragenter and dragleave come for each element that is crossed
const drag = (change) => { n_inside = Math.max(0, n_inside + change); document.body.classList.toggle("dragging", n_inside > 0); };
const hasFiles = (event) => event.dataTransfer.types.includes("Files");
document.addEventListener("dragenter", (event) => { if (hasFiles(event)) drag(1); });
document.addEventListener("dragleave", (event) => { if (hasFiles(event)) drag(-1); });
document.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
document.addEventListener("drop", async (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drag(-n_inside);
  add(await dropped(event.dataTransfer));
});

$("options").addEventListener("submit", (event) => { event.preventDefault(); ask([...pictures]); });
$("model").onchange = showModel;
$("notice-again").onclick = start;
$("key-form").onsubmit = (event) => { event.preventDefault(); useKey($("key").value.trim()); start(); };
$("copy-all").onclick = ({target}) => copy(rows().filter(({caption}) => caption !== undefined).map(({path, caption}) => `${path}\t${caption}`).join("\n"), target);
$("download").onclick = download;
$("clear").onclick = () => { while (pictures.length) remove(pictures.at(-1)); };
$("percents").oninput = ({target}) => document.body.classList.toggle("percents", target.checked);
moveBetweenWords($("pictures"), say);
start();
