import { closeSync, openSync } from 'node:fs';
import { devNull } from 'node:os';
import { isatty } from 'node:tty';
import { errnoOf } from '../errors.js';

/** Signals to the process. As process 1 of a container it receives only those that it listens for. */
export interface Signals {
  /** Resolves with the signal that first asked it to end. */
  readonly ended: Promise<string>;
  /** The signal that has asked it to end. Undefined: none has. */
  readonly received: string | undefined;
  /** Calls back when the process is asked to read its files again. */
  onReload(reload: () => void): void;
}

/** A second Ctrl-C later than this ends the process at once. An earlier one comes from a package manager, which repeats the terminal's. */
const IMPATIENT_MS = 1000;

/**
 * SIGTERM and SIGINT ask the process to end. A repeated signal changes nothing, except that a second Ctrl-C after a second ends it at once.
 * SIGHUP asks it to read its files again, or to end where its terminal has hung up.
 */
export function listenToSignals(): Signals {
  // One that reads from no terminal and writes to none goes on where it hangs up: so do those under `nohup`, whose mask Node.js resets.
  const onTerminal = hasTerminal() ? [0, 1, 2].filter((descriptor) => isatty(descriptor)) : [];
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
      if (onTerminal.length === 0 || hasTerminal()) {
        reload();
        return;
      }
      for (const descriptor of onTerminal.splice(0)) letGo(descriptor);
      end('SIGHUP');
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

/** Whether the process has a terminal. One that has hung up cannot be opened. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch (error) {
    // Where no file can be opened at all, this says nothing.
    return errnoOf(error) === 'EMFILE' || errnoOf(error) === 'ENFILE';
  }
}

/** At its end Node.js would set back the modes of a terminal that is gone, and abort. */
function letGo(descriptor: number): void {
  closeSync(descriptor);
  // Takes the lowest number that is free: that one.
  openSync(devNull, 'r+');
}
