// The words of a caption with the probability of each, whatever its tokens are: words, characters or byte-pair units.
// The same rules as src/img2seq/report/words.py, which writes them into galleries.

const CONTROL_TOKENS = new Set(["<bos>", "<unk>", "<mask>", "<pad>", "<eos>"]);
const LETTERS = lettersOfBytes();

/** Return the geometric mean of the probabilities of a caption's tokens, its end included, a given beginning not. */
export function certainty(caption, hasBeginning = false) {
  let values = caption.token_log_probabilities;
  if (hasBeginning) values = values.slice(Math.max(0, values.findIndex((value) => value !== 0)));
  return values.length ? Math.exp(sum(values) / values.length) : 1;
}

/** Return [text, probability] of each piece of a caption, null for what stands between words. */
export function wordsOf({text, tokens, token_log_probabilities: values}) {
  const kept = tokens.map((token, i) => [token, values[i]]).filter(([token]) => !CONTROL_TOKENS.has(token));
  const starts = startsOf(text, kept.map(([token]) => token));
  if (!starts) return text ? [[text, null]] : [];
  const pieces = [];
  let end = 0;
  for (const [first, last] of /\s/.test(text) ? spansOfWords(text) : spansBetween(starts, text.length)) {
    if (first > end) pieces.push([text.slice(end, first), null]);
    const own = kept.filter((_, i) => first <= starts[i] && starts[i] < last).map(([, value]) => value);
    pieces.push([text.slice(first, last), own.length ? Math.exp(sum(own)) : null]);
    end = last;
  }
  return end < text.length ? [...pieces, [text.slice(end), null]] : pieces;
}

/** Return an element that shows a caption with the certainty of its words; arrow keys move between them. */
export function captionElement(caption) {
  const element = document.createElement("p");
  element.className = "caption";
  element.dir = "auto";
  const heard = [];
  for (const [text, probability] of wordsOf(caption)) {
    if (probability === null) { element.append(text); continue; }
    const word = document.createElement("span");
    word.className = "word";
    word.textContent = text;
    word.tabIndex = heard.length ? -1 : 0;
    word.style.setProperty("--p", probability.toFixed(3));
    word.dataset.percent = percent(probability);
    heard.push(`${text} ${percent(probability)} %`);
    element.append(word);
  }
  if (!caption.text) element.append("(nothing)");
  const numbers = document.createElement("p");
  numbers.className = "heard";
  numbers.textContent = heard.length ? `Certainty of each word: ${heard.join(", ")}` : "";
  const both = document.createElement("div");
  both.append(element, numbers);
  return both;
}

/** Let the arrow keys move between the words of captions inside a box, and say the number of the one they reach. */
export function moveBetweenWords(box, say) {
  box.addEventListener("keydown", (event) => {
    const caption = event.target.closest(".caption"), step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!caption || !step) return;
    const words = [...caption.querySelectorAll(".word")], sign = getComputedStyle(caption).direction === "rtl" ? -1 : 1;
    const next = words[words.indexOf(event.target) + sign * step];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  box.addEventListener("focusin", ({target}) => { if (target.matches(".word")) say(`${target.textContent}: ${target.dataset.percent} %`); });
}

export const percent = (probability) => (100 * probability).toFixed(0);

const sum = (values) => values.reduce((a, b) => a + b, 0);
const spansOfWords = (text) => [...text.matchAll(/\S+/g)].map((match) => [match.index, match.index + match[0].length]);
const afterSpaces = (text, place) => text.length - text.slice(place).trimStart().length;

function spansBetween(starts, end) {
  const places = [...new Set(starts)].sort((a, b) => a - b);
  return places.map((place, i) => [place, places[i + 1] ?? end]);
}

/** Return where each token begins in the text, spaces left out; null where they do not make up the text. */
function startsOf(text, tokens) {
  const starts = [];
  let place = 0;
  for (const token of tokens) {
    const [first = "", ...rest] = token;
    const written = [token, first.toUpperCase() + rest.join("")]; // a sentence may begin with a capital
    const found = written.map((word) => text.indexOf(word, place)).find((at) => at >= 0 && !text.slice(place, at).trim());
    if (found === undefined) return startsOfBytes(text, tokens);
    starts.push(afterSpaces(text, found));
    place = found + token.length;
  }
  return text.slice(place).trim() ? startsOfBytes(text, tokens) : starts;
}

/** Likewise for tokens that write each byte as a letter, as byte-pair units do. */
function startsOfBytes(text, tokens) {
  const encoder = new TextEncoder(), ofByte = [];
  let written = "", place = 0;
  for (const letter of text) {
    for (const byte of encoder.encode(letter)) { ofByte.push(place); written += LETTERS[byte]; }
    place += letter.length;
  }
  if (tokens.join("") !== written) return null;
  place = 0;
  return tokens.map((token) => { const start = afterSpaces(text, ofByte[place]); place += token.length; return start; });
}

/** The letter that byte-level units write for each byte (GPT-2, `bytes_to_unicode`): its own where it can be seen. */
function lettersOfBytes() {
  const isSeen = (byte) => (byte >= 0x21 && byte < 0x7f) || (byte >= 0xa1 && byte < 0x100 && byte !== 0xad);
  let unseen = 0x100;
  return Array.from({length: 256}, (_, byte) => String.fromCharCode(isSeen(byte) ? byte : unseen++));
}
