/** The reaction to a close code. */

/** True if the client may dial again after this close code. */
export function comesBack(code: number): boolean {
  return code < 4000 ? ![1002, 1007, 1009].includes(code) : code < 4500;
}
