// Captions as CSV: quoted as RFC 4180 has it, and no text that a spreadsheet would take for a formula.

/** Return the text of a table; each row is an object, and the columns are those that any row has, in order. */
export function toCsv(rows) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column] ?? ""))];
  return "\ufeff" + lines.map((values) => values.map(cell).join(",") + "\r\n").join("");  // the mark tells Excel that it is UTF-8
}

function cell(value) {
  if (typeof value === "number") return String(value);
  const text = /^\s*[=+\-@\t\r＝＋－＠]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
}
