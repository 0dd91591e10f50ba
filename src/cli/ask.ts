import { createInterface } from 'node:readline/promises';

/** Whether somebody sits there who can be asked. */
export function isAtTerminal(): boolean {
  return process.stdin.isTTY === true;
}

/** Asks on standard error; everything but yes is no. */
export async function askYes(question: string): Promise<boolean> {
  const ask = createInterface({ input: process.stdin, output: process.stderr });
  ask.once('close', () => process.stderr.write('\n'));
  try {
    // Ctrl-C and Ctrl-D are no.
    const answer = await ask.question(`${question} [y/N] `).catch(() => '');
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    ask.close();
  }
}
