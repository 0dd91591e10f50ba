/** Runs the steps of the walk-through: says what was asked and what came back, and whether that was expected. */
export class Steps {
  #number = 0;
  #failures = 0;

  chapter(title: string): void {
    process.stdout.write(`\n${title}\n`);
  }

  /** One line: ✓ or ✗, what was asked, what came back. */
  step(asked: string, came: string, expected: boolean): void {
    this.#number += 1;
    if (!expected) this.#failures += 1;
    process.stdout.write(`  ${expected ? '✓' : '✗'} ${String(this.#number).padStart(2)}  ${asked.padEnd(62)} ${came}\n`);
  }

  get count(): number {
    return this.#number;
  }

  get failures(): number {
    return this.#failures;
  }
}

/** Waits until `look` gives something, asking every 20 ms; undefined after `timeoutMs`. */
export async function eventually<T>(look: () => Promise<T | undefined> | T | undefined, timeoutMs = 10_000): Promise<T | undefined> {
  for (const end = Date.now() + timeoutMs; Date.now() < end; ) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return undefined;
}
