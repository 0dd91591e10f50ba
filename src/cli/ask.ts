import { createInterface } from 'node:readline/promises';

/** Whether somebody sits there who can be asked. */
export function isAtTerminal(): boolean {
  return process.stdin.isTTY === true;
}

/** Asks on standard error; everything but yes is no. */
export async function askYes(question: string): Promise<boolean> {
  const ask = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await ask.question(`${question} [y/N] `)).trim());
  } finally {
    ask.close();
  }
}
