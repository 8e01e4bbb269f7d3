/* What changed from one text to another, word by word. */

export const WORDS_AT_MOST = 600; // of either text; the table of a longer pair would take too long to fill

/** [kind, words] in order, where kind is "same", "gone" (only in `before`) or "new" (only in `after`).
 *
 *  The longest common subsequence of words and the blanks between them. */
export function wordDiff(before, after) {
  const [old, now] = [before, after].map((text) => text.match(/\s+|[^\s]+/g) ?? []);
  if (old.length > WORDS_AT_MOST || now.length > WORDS_AT_MOST) return [["new", after]];
  const width = now.length + 1;
  const common = new Uint16Array((old.length + 1) * width); // of old[i..] and now[j..]
  for (let i = old.length - 1; i >= 0; i--)
    for (let j = now.length - 1; j >= 0; j--)
      common[i * width + j] =
        old[i] === now[j] ? common[(i + 1) * width + j + 1] + 1 : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  const pieces = [];
  const put = (kind, word) => {
    if (pieces.at(-1)?.[0] === kind) pieces.at(-1)[1] += word;
    else pieces.push([kind, word]);
  };
  let [i, j] = [0, 0];
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) put("same", old[i++], j++);
    else if (j >= now.length || (i < old.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) put("gone", old[i++]);
    else put("new", now[j++]);
  }
  return pieces;
}
