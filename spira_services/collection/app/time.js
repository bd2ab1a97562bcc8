/* Times of the device's clock. */

const two = (number) => String(number).padStart(2, "0");

/** ISO 8601 with the offset of this phone: what a clock on the wall says, and which clock. */
export function isoWithOffset(date = new Date()) {
  const minutes = -date.getTimezoneOffset();
  const offset = `${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  const local = new Date(date.getTime() + minutes * 60_000).toISOString().slice(0, 23);
  return `${local}${minutes < 0 ? "-" : "+"}${offset}`;
}

/** Day and time as people write them. */
export function inWords(iso, language) {
  const format = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  return new Intl.DateTimeFormat(language, format).format(new Date(iso));
}
