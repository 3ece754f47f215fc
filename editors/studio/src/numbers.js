// Numbers for people, as nasdsl prints them: three significant digits and a unit.
export function shortAmount(value) {
  for (const [unit, scale] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= 0.9995 * scale) {
      const number = value / scale;
      return `${number.toFixed(Math.max(0, 3 - String(Math.trunc(number)).length))} ${unit}`;
    }
  }
  return String(value);
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
