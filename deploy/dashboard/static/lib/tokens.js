// @ts-check
// Tokens as real text, coloured by the CSS Custom Highlight API, so that it can be selected, searched
// and read aloud. Blocks of text are built at once; colours only for blocks near the screen.

import { fill, h, visible } from "./dom.js";
import { number } from "./format.js";

const BLOCK = 512;
export const BUCKETS = 8;
/** Smaller log-ratios of learner to engine are all alike. */
const LEAST = 1e-5;

/**
 * @typedef {{text: string, id: number, sampled: boolean, turn: number, version: number, logprob: number | null, logRatio: number | null, start: number}} Token
 * @typedef {{element: HTMLElement, text: Text, tokens: Token[], near: boolean}} Block
 */

/** Tokens of a view in order. @param {{advantage: number | null, segments: any[]}} view @returns {Token[]} */
export function flat(view) {
  return view.segments.flatMap((own) => own.pieces.map((/** @type {string} */ piece, /** @type {number} */ i) => ({
    text: visible(piece), id: own.ids[i], sampled: own.sampled, turn: own.turn, version: own.version,
    logprob: own.sampled ? own.logprobs[i] ?? null : null, logRatio: own.log_ratios[i] ?? null, start: 0,
  })));
}

/** How a token is coloured: a bucket from 0, or null for none. Each scale says what its ends mean. */
export const SCALES = {
  "log-probability": {
    ends: ["certain", "p below 1 %"],
    bucket: (/** @type {Token} */ token) => token.logprob === null ? null : Math.min(BUCKETS - 1, Math.floor((-token.logprob / 4.6) * BUCKETS)),
  },
  ratio: {
    ends: ["learner and engine alike", "one gives it twice as much"],
    bucket: (/** @type {Token} */ token) => token.logRatio === null ? null : Math.max(0, Math.min(BUCKETS - 1, Math.floor((Math.log(Math.abs(token.logRatio) / LEAST) / Math.log(Math.LN2 / LEAST)) * BUCKETS))),
  },
  mask: {
    ends: ["given, not learned", "sampled, learned"],
    bucket: (/** @type {Token} */ token) => (token.sampled ? BUCKETS - 3 : null),
  },
  version: {
    ends: ["oldest weights", "newest weights"],
    bucket: (/** @type {Token} */ token, /** @type {any} */ facts) => !token.sampled ? null
      : facts.versions.length < 2 ? 2 : Math.round((facts.versions.indexOf(token.version) / (facts.versions.length - 1)) * (BUCKETS - 1)),
  },
  advantage: {
    ends: ["below its siblings", "above its siblings"],
    bucket: (/** @type {Token} */ token, /** @type {any} */ facts) => !token.sampled || !facts.advantage ? null
      : (facts.advantage < 0 ? BUCKETS - 1 : 0),
  },
};

/**
 * A view of tokens; `inspect(token)` hears which one the reader points at.
 * @param {Token[]} tokens @param {{advantage: number | null, versions: number[]}} facts @param {(token: Token, place: number) => void} inspect
 */
export function tokenView(tokens, facts, inspect) {
  const holder = h("div", { class: "tokens", tabindex: 0, role: "region", "aria-label": "Tokens; left and right keys go from token to token" });
  /** @type {Block[]} */
  const blocks = [];
  for (let first = 0; first < tokens.length; first += BLOCK) {
    const own = tokens.slice(first, first + BLOCK);
    let length = 0;
    for (const token of own) {
      token.start = length;
      length += token.text.length;
    }
    const text = document.createTextNode(own.map((token) => token.text).join(""));
    const element = h("div", { class: "block", data: { block: blocks.length } }, text);
    blocks.push({ element, text, tokens: own, near: false });
    holder.append(element);
  }
  let name = /** @type {keyof typeof SCALES} */ ("log-probability");
  let current = -1;

  function colour() {
    const sets = Array.from({ length: BUCKETS }, () => /** @type {Range[]} */ ([]));
    const given = [];
    for (const block of blocks) {
      if (!block.near) continue;
      for (const token of block.tokens) {
        const bucket = SCALES[name].bucket(token, facts);
        if (bucket !== null) sets[bucket].push(range(block, token));
        if (!token.sampled) given.push(range(block, token));
      }
    }
    sets.forEach((ranges, i) => CSS.highlights.set(`heat-${name === "advantage" ? "sign" : "level"}-${i}`, new Highlight(...ranges)));
    for (let i = 0; i < BUCKETS; i += 1) CSS.highlights.delete(`heat-${name === "advantage" ? "level" : "sign"}-${i}`);
    CSS.highlights.set("given", new Highlight(...given));
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) blocks[Number(/** @type {HTMLElement} */ (entry.target).dataset.block)].near = entry.isIntersecting;
    colour();
  }, { rootMargin: "600px" });
  for (const block of blocks) seen.observe(block.element);

  /** @param {number} place @param {boolean} scroll */
  function choose(place, scroll) {
    if (place < 0 || place >= tokens.length) return;
    current = place;
    const block = blocks[Math.floor(place / BLOCK)];
    const marked = range(block, tokens[place]);
    CSS.highlights.set("current", new Highlight(marked));
    if (scroll) {
      const box = marked.getBoundingClientRect();
      if (box.top < 120 || box.bottom > innerHeight - 40) scrollBy({ top: box.top - innerHeight / 3 });
    }
    inspect(tokens[place], place);
  }

  holder.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const caret = document.caretPositionFromPoint(event.clientX, event.clientY);
    const at = blocks.findIndex((block) => block.text === caret?.offsetNode);
    if (caret && at >= 0) choose(at * BLOCK + find(blocks[at].tokens, caret.offset), false);
  });
  holder.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    choose(current + step, true);
  });
  return {
    element: holder,
    /** @param {string} scale */
    show(scale) {
      name = /** @type {keyof typeof SCALES} */ (scale);
      colour();
    },
    /** The next sampled token with a probability below 10 %. @param {1 | -1} way */
    surprise(way) {
      for (let i = current + way; i >= 0 && i < tokens.length; i += way) {
        const value = tokens[i].logprob;
        if (value !== null && value < -2.3) return choose(i, true);
      }
    },
    close() {
      seen.disconnect();
      CSS.highlights.clear();
    },
  };
}

/** @param {Block} block @param {Token} token */
function range(block, token) {
  const made = new Range();
  made.setStart(block.text, token.start);
  made.setEnd(block.text, token.start + token.text.length);
  return made;
}

/** The token that an offset lies in. @param {Token[]} tokens @param {number} offset */
function find(tokens, offset) {
  let low = 0;
  let high = tokens.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (tokens[middle].start <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** What is known of one token. @param {HTMLElement} place @param {Token} token @param {number} index @param {number | null} advantage */
export function inspector(place, token, index, advantage) {
  const p = token.logprob === null ? null : Math.exp(token.logprob);
  fill(place,
    h("b", null, JSON.stringify(token.text)), ` token ${index}, id ${token.id}, turn ${token.turn}, `,
    token.sampled
      ? `sampled with weights ${token.version}, log-probability ${number(token.logprob)} (p = ${number(p)}), advantage ${number(advantage)}${token.logRatio === null ? "" : `, learner / engine ${number(Math.exp(token.logRatio))} (log ${token.logRatio.toExponential(1)})`}`
      : "given to the policy: masked, not learned");
}
