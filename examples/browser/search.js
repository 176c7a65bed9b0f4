// Beam search for one picture, as `img2seq caption` searches where nothing else is asked for: 5 beams, length penalty 0.7.

const LENGTH_PENALTY = 0.7;

/**
 * Return the tokens of the best caption.
 *
 * @param {(tokens: number[], parents: number[]) => Promise<Float32Array[]>} next what the decoder says of the next token: logits for each
 *     beam, whose last token and row of the step before (its parent) it is told.
 */
export async function search(next, { begin, end, never, longest, beams = 5 }) {
  let rows = Array.from({ length: beams }, (_, i) => ({ tokens: [], score: i ? -Infinity : 0, sum: 0 }));
  let last = rows.map(() => begin);
  let parents = rows.map((_, i) => i);
  const done = [];
  for (let length = 1; length <= longest; length++) {
    const logits = await next(last, parents);
    const candidates = rows.flatMap((row, beam) => (row.score === -Infinity ? [] : continuations(logits[beam], never, row, beam, 2 * beams)));
    candidates.sort((a, b) => b.score - a.score);
    const best = candidates.slice(0, 2 * beams);
    for (const { beam, token, score } of best.slice(0, beams)) {
      if (token === end) {
        done.push({ tokens: rows[beam].tokens, score: score / length ** LENGTH_PENALTY });
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
    if (hope === -Infinity || (done.length >= beams && hope / length ** LENGTH_PENALTY <= done[beams - 1].score)) {
      break;
    }
  }
  return (done[0] ?? rows[0]).tokens;
}

/** Return the likeliest `n` tokens after a beam, with the score of beam and token together. */
function continuations(logits, never, { score }, beam, n) {
  for (const token of never) {
    logits[token] = -Infinity;
  }
  const highest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - highest), 0)) + highest;
  const tokens = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
  return tokens.slice(0, n).map((token) => ({ beam, token, score: score + logits[token] - total })).filter((one) => one.score > -Infinity);
}
