import { closeSync, openSync, readFileSync } from 'node:fs';

/** What the process is told from outside, from its first moment on: as process 1 of a container it is told nothing that it does not listen for. */
export interface Signals {
  /** Resolves with the signal that first asked it to end. */
  readonly ended: Promise<string>;
  /** The signal that has asked it to end. Undefined: none has. */
  readonly received: string | undefined;
  /** Calls back where it is asked to read its files again. */
  onReload(reload: () => void): void;
}

/** How long after the first a second Ctrl-C ends the process at once: package managers pass one on beside the terminal's own. */
const IMPATIENT_MS = 1000;

/**
 * SIGTERM and SIGINT ask it to end; what comes again changes nothing, but a second Ctrl-C after a second ends it at once. SIGHUP asks it to
 * read its files again, and where its terminal has hung up, to end.
 */
export function listenToSignals(): Signals {
  const hadTerminal = hasTerminal();
  const ignoresHangup = startedIgnoringHangup();
  let reload: () => void = () => undefined;
  let firstAt: number | undefined;
  let received: string | undefined;

  const ended = new Promise<string>((resolve) => {
    function end(name: string): void {
      const now = performance.now();
      if (name === 'SIGINT' && firstAt !== undefined && now - firstAt > IMPATIENT_MS) process.exit(130);
      firstAt ??= now;
      received ??= name;
      resolve(name);
    }
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => end(name));
    process.on('SIGHUP', () => {
      if (hadTerminal && !ignoresHangup && !hasTerminal()) end('SIGHUP');
      else reload();
    });
  });
  return {
    ended,
    get received() {
      return received;
    },
    onReload(listener) {
      reload = listener;
    },
  };
}

/** Whether the session has a terminal: it cannot be opened any more once it has hung up. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}

/** Under `nohup` SIGHUP is ignored, on Linux: bit 0 of the signals that are. */
function startedIgnoringHangup(): boolean {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
    return (BigInt(`0x${mask}`) & 1n) === 1n;
  } catch {
    return false;
  }
}
