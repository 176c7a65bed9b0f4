// Beam search for one picture, as `img2seq caption` searches with the settings that an export carries.

/** What img2seq searches with where an export says nothing else. */
const USUAL = {
  method: "beam",
  beam_size: 5,
  beam_groups: 1,
  length_penalty: 0.7,
  min_length: 0,
  no_repeat_ngram: 0,
  repetition_penalty: 1,
  repetition_penalty_max_window: 64,
  frequency_penalty: 0,
  frequency_penalty_max_window: 128,
};

/** Return how to search, of what is stored. Throws where it is a way that is not written here. */
export function settingsOf(stored) {
  const settings = { ...USUAL, ...stored };
  if (settings.method === "sample" || settings.beam_groups > 1) {
    const how = settings.method === "sample" ? "sampled" : "searched for with groups of beams";
    throw new Error(`its captions are ${how}, which this page does not do`);
  }
  return settings.method === "greedy" ? { ...settings, beam_size: 1 } : settings;
}

/**
 * Return the tokens of the best caption.
 *
 * @param {(tokens: number[], parents: number[]) => Promise<Float32Array[]>} next what the decoder says of the next token: logits for each
 *     beam, whose last token and row of the step before (its parent) it is told.
 */
export async function search(next, { begin, end, never, longest, settings }) {
  const { beam_size: beams, length_penalty: penalty } = settings;
  let rows = Array.from({ length: beams }, (_, i) => ({ tokens: [], score: i ? -Infinity : 0 }));
  let last = rows.map(() => begin);
  let parents = rows.map((_, i) => i);
  const done = [];
  for (let length = 1; length <= longest; length++) {
    const logits = await next(last, parents);
    const candidates = rows.flatMap(({ tokens, score }, beam) => {
      if (score === -Infinity) {
        return [];
      }
      allow(logits[beam], tokens, { never, end, settings });
      return continuations(logits[beam], 2 * beams).map(({ token, value }) => ({ beam, token, score: score + value }));
    });
    candidates.sort((a, b) => b.score - a.score);
    const best = candidates.slice(0, 2 * beams);
    for (const { beam, token, score } of best.slice(0, beams)) {
      if (token === end) {
        done.push({ tokens: rows[beam].tokens, score: score / length ** penalty });
      }
    }
    const going = best.filter(({ token }) => token !== end).slice(0, beams);
    rows = Array.from({ length: beams }, (_, i) => {
      const { beam, token, score } = going[i] ?? { beam: 0, token: end, score: -Infinity };
      return { tokens: [...rows[beam].tokens, token], score, parent: beam };
    });
    last = rows.map(({ tokens }) => tokens.at(-1));
    parents = rows.map(({ parent }) => parent);
    done.sort((a, b) => b.score - a.score);
    const hope = Math.max(...rows.map(({ score }) => score));
    if (hope === -Infinity || (done.length >= beams && hope / length ** penalty <= done[beams - 1].score)) {
      break;
    }
  }
  return (done[0] ?? rows[0]).tokens;
}

/** Leave in a beam's logits only tokens that may come, and make repetitions less likely: as img2seq does in generation/logits.py. */
function allow(logits, tokens, { never, end, settings }) {
  for (const token of never) {
    logits[token] = -Infinity;
  }
  if (tokens.length < settings.min_length) {
    logits[end] = -Infinity;
  }
  const by = settings.repetition_penalty;
  for (const token of new Set(tokens.slice(-settings.repetition_penalty_max_window))) {
    logits[token] = logits[token] > 0 ? logits[token] / by : logits[token] * by;
  }
  for (const token of tokens.slice(-settings.frequency_penalty_max_window)) {
    logits[token] -= settings.frequency_penalty;
  }
  const banned = repeating(tokens, settings.no_repeat_ngram).map((token) => [token, logits[token]]);
  banned.forEach(([token]) => (logits[token] = -Infinity));
  if (logits.every((value) => value === -Infinity)) {
    banned.forEach(([token, value]) => (logits[token] = value)); // then a repetition is the lesser evil
  }
}

/** Return the tokens that would complete a sequence of `n` tokens that has been written already. */
function repeating(tokens, n) {
  const ending = tokens.slice(tokens.length - n + 1);
  const begins = Array.from({ length: n && Math.max(0, tokens.length - n + 1) }, (_, i) => i);
  const found = begins.filter((begin) => ending.every((token, i) => tokens[begin + i] === token));
  return [...new Set(found.map((begin) => tokens[begin + n - 1]))];
}

/** Return the likeliest `n` tokens with their log-probabilities. */
function continuations(logits, n) {
  const highest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - highest), 0)) + highest;
  const tokens = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
  return tokens.slice(0, n).map((token) => ({ token, value: logits[token] - total })).filter(({ value }) => value > -Infinity);
}
