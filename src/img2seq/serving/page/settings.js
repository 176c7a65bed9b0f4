// The form of decoding settings, built from what the server says of each: type, range, default, meaning.

const MAIN = ["method", "beam_size", "n_best", "temperature", "top_p", "seed", "max_length"];
const ONLY_FOR = {  // settings that a method does not look at are not shown with it
  beam_size: ["beam"], beam_groups: ["beam"], diversity: ["beam"], length_penalty: ["beam"], n_best: ["beam", "sample"],
  temperature: ["sample"], top_k: ["sample"], top_p: ["sample"], tau: ["sample"], seed: ["sample"],
};

const TITLES = {beam_size: "beams", n_best: "captions"};

/** Return the word that the page has for a setting. */
export const titleOf = (name) => TITLES[name] ?? name.replaceAll("_", " ");

export class Settings {
  /** Build the form of what is declared, within the limits of this server. */
  constructor(declared, {max_rows, max_tokens}) {
    this.declared = declared;
    for (const [name, most] of [["beam_size", max_rows], ["n_best", max_rows], ["max_length", max_tokens]]) {
      if (name in declared && most) declared[name].maximum = Math.min(declared[name].maximum, most);
    }
    this.inputs = {};
    this.defaults = Object.fromEntries(Object.entries(declared).map(([name, field]) => [name, field.default]));
    for (const box of ["settings-main", "settings-rest"]) document.getElementById(box).replaceChildren();
    const known = MAIN.filter((name) => name in declared);
    for (const name of [...known, ...Object.keys(declared).filter((name) => !known.includes(name))]) {
      document.getElementById(known.includes(name) ? "settings-main" : "settings-rest").append(this.#field(name, declared[name]));
    }
    document.getElementById("settings-reset").onclick = () => { for (const name in this.inputs) this.inputs[name].value = this.defaults[name]; this.#refresh(); };
    this.#refresh();
  }

  /** Use a model's own defaults; what a person has changed stays. */
  useDefaults(ofModel) {
    for (const [name, value] of Object.entries(ofModel)) {
      const input = this.inputs[name];
      if (!input) continue;
      if (input.value === String(this.defaults[name])) input.value = value;
      this.defaults[name] = value;
    }
    this.#refresh();
  }

  /** Return the settings that are not the default, as text. */
  values() {
    const found = {};
    for (const [name, input] of Object.entries(this.inputs)) {
      if (!input.closest(".setting").hidden && input.value !== "" && input.value !== String(this.defaults[name])) found[name] = input.value;
    }
    return found;
  }

  /** Tell whether each value is in its range; the first that is not gets the focus. */
  check() {
    const wrong = Object.values(this.inputs).find((input) => !input.closest(".setting").hidden && !input.checkValidity());
    if (!wrong) return true;
    for (let box = wrong.parentElement; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
    wrong.focus();
    return false;
  }

  #field(name, field) {
    const box = document.createElement("div"), label = document.createElement("label");
    const input = document.createElement(field.enum ? "select" : "input");
    box.className = "setting";
    input.id = label.htmlFor = `setting-${name}`;
    input.name = name;
    label.textContent = titleOf(name);
    if (field.enum) input.append(...field.enum.map((value) => new Option(value, value)));
    else Object.assign(input, {type: "number", step: field.type === "integer" ? 1 : "any", min: field.minimum ?? field.exclusiveMinimum ?? "", max: field.maximum ?? ""});
    input.value = field.default;
    const meaning = paragraph("meaning", `${name}-meaning`, [field.description, rangeInWords(field)].filter(Boolean).join(" "));
    const problem = paragraph("problem", `${name}-problem`, "");
    input.setAttribute("aria-describedby", `${problem.id} ${meaning.id}`);
    input.addEventListener("input", () => this.#refresh());
    this.inputs[name] = input;
    box.append(label, input, problem, meaning);
    return box;
  }

  #refresh() {
    const method = this.inputs.method?.value, {beam_size: beams, n_best: most} = this.inputs;
    if (beams && most) most.max = method === "beam" && beams.value ? beams.value : this.declared.n_best.maximum ?? "";
    for (const [name, input] of Object.entries(this.inputs)) {
      input.closest(".setting").hidden = method in {greedy: 0, beam: 0, sample: 0} && !(ONLY_FOR[name] ?? [method]).includes(method);
      const isRight = input.checkValidity();
      input.setAttribute("aria-invalid", String(!isRight));
      document.getElementById(`${name}-problem`).textContent = isRight ? "" : problemOf(input);
    }
    const words = Object.entries(this.values()).map(([name, value]) => `${titleOf(name)} ${value}`);
    document.getElementById("settings-summary").textContent = words.join(", ");
  }
}

function paragraph(kind, id, text) {
  const element = document.createElement("p");
  Object.assign(element, {className: kind, id, textContent: text});
  return element;
}

function rangeInWords({minimum, exclusiveMinimum, maximum}) {
  const low = minimum ?? exclusiveMinimum;
  if (low === undefined || maximum === undefined) return "";
  if (maximum > Number.MAX_SAFE_INTEGER) return `${low} or more.`;
  return `${minimum === undefined ? "Above " : ""}${low} to ${maximum.toLocaleString("en")}.`;
}

function problemOf(input) {
  if (input.validity.stepMismatch) return "Expected a whole number.";
  if (input.validity.badInput) return "Expected a number.";
  return `Expected ${input.min} to ${input.max}.`;
}
