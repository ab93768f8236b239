// The document that the page opens with: a file of pie-pool itself, as it was one day.

import SAMPLE from "../sample/cache.rs.txt";

export { SAMPLE };

/** The cursor stands behind this. */
export const AFTER = "let (row, precision) = (self.shape.row(), self.precision);";

/** What is typed for those who look on: letter by letter, as far as they matter. */
export const SCRIPT = ["\n        ", "let ", "n", "e", "e", "d", "e", "d", " = ", "slots", ".", "len()", " * ", "row", ";"];
