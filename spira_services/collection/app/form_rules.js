/* The rules of the form's fields: typed text into values, and what is wrong with it. */

import { isoWithOffset } from "./time.js";

const WHOLE = /^[+-]?\d{1,15}$/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)$/;

const WEIGHTS = [0, 8, 7, 6, 5, 4, 3, 1]; // of the eight digits
const LETTERS = "ABCDEFGHIJK";

/**
 * Whether the letter of a number of Hospital das Clínicas follows from its eight digits.
 *
 * The rule is the one that SPIRA's first app has in use: the first digit does not count, the weight
 * of the last is 1 (2 would be usual), and 11 less the remainder by 11 is the place in the alphabet.
 * It was not verified by the hospital; so a person can say that the number is right all the same.
 */
export function hasRightLetter(number) {
  const plain = number.toUpperCase().replace(/[\s./-]/g, "");
  if (!/^\d{8}[A-K]$/.test(plain)) return false;
  const sum = WEIGHTS.reduce((total, weight, i) => total + weight * Number(plain[i]), 0);
  return plain[8] === LETTERS[10 - (sum % 11)];
}

const plainNumber = (text) => text.trim().replace(/\s/g, "").replace(",", "."); // as people write in Brazil

/** The value of a field, null where it is empty or not of its kind. */
export function valueOf(field, text = "") {
  const typed = text.trim();
  if (typed === "") return null;
  switch (field.kind) {
    case "whole":
      return WHOLE.test(typed) ? Number(typed) : null;
    case "number":
      return NUMBER.test(plainNumber(typed)) ? Number(plainNumber(typed)) : null;
    case "instant": // as a field of a browser has it: local and without an offset
      return Number.isNaN(Date.parse(typed)) ? null : isoWithOffset(new Date(typed));
    case "flag":
      return typed === "true";
    default:
      return typed;
  }
}

/** What is wrong with a field: `{rule}`, or null. */
export function problemOf(field, text = "", now = new Date()) {
  if (text.trim() === "") return field.required ? { rule: "required" } : null;
  const value = valueOf(field, text);
  if (value === null) return { rule: "format" };
  if (field.values?.length && !field.values.map(String).includes(String(value))) return { rule: "values" };
  const { low = null, high = null } = field;
  if ((low !== null && value < low) || (high !== null && value > high)) return { rule: "range" };
  const isTime = field.kind === "date" || field.kind === "instant";
  return isTime && new Date(text.trim()) > now ? { rule: "future" } : null;
}

/** Typed values of what was filled in. */
export function valuesOf(fields, typed) {
  const values = {};
  for (const field of fields) {
    const value = valueOf(field, typed[field.name]);
    if (value !== null) values[field.name] = value;
  }
  return values;
}

/** What is wrong with all that was typed: `[{field, rule, …}]`. */
export const formProblems = (fields, typed) =>
  fields.flatMap((field) => {
    const problem = problemOf(field, typed[field.name]);
    return problem ? [{ field: field.name, ...problem }] : [];
  });
