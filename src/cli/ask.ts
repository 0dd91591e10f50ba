import { createInterface } from 'node:readline/promises';

/** Whether somebody sits there who can be asked. */
export function isAtTerminal(): boolean {
  return process.stdin.isTTY === true;
}

/** Asks on standard error; everything but yes is no. */
export async function askYes(question: string): Promise<boolean> {
  const ask = createInterface({ input: process.stdin, output: process.stderr });
  try {
    // Ctrl-C rejects, and Ctrl-D closes: both are no.
    const closed = new Promise<string>((resolve) => ask.once('close', () => resolve('')));
    const answer = await Promise.race([ask.question(`${question} [y/N] `).catch(() => ''), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    ask.close();
  }
}
