import { type FSWatcher, watch } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface DirectoryWatch {
  close(): void;
}

/**
 * Calls `onChange` soon after a file in `directory` has changed: written in place, renamed over, deleted, or swapped
 * by the `..data` symlink of a mounted Kubernetes secret. The watch of the directory brings the news at once; a look
 * every `pollMs` finds what the watch misses (network file systems, a directory that was itself replaced).
 */
export function watchDirectory(directory: string, onChange: () => void, { pollMs = 1000, settleMs = 25 } = {}): DirectoryWatch {
  let closed = false;
  let watcher: FSWatcher | undefined;
  let settle: NodeJS.Timeout | undefined;
  let last: string | undefined;
  let looking = false;

  async function look(): Promise<void> {
    if (closed || looking) return;
    looking = true;
    const seen = await fingerprint(directory);
    looking = false;
    if (closed) return;
    const changed = last !== undefined && seen !== last;
    last = seen;
    if (changed) onChange();
  }

  function lookSoon(): void {
    clearTimeout(settle);
    settle = setTimeout(() => void look(), settleMs);
  }

  function open(): void {
    try {
      watcher = watch(directory, { persistent: false }, lookSoon);
      watcher.on('error', reopen);
    } catch {
      watcher = undefined; // The poll goes on, and the next one opens it.
    }
  }

  function reopen(): void {
    watcher?.close();
    watcher = undefined;
  }

  const poll = setInterval(() => {
    if (!watcher) open();
    void look();
  }, pollMs);
  poll.unref();
  open();
  void look();

  return {
    close() {
      closed = true;
      clearInterval(poll);
      clearTimeout(settle);
      watcher?.close();
    },
  };
}

/** What would differ if anything in the directory did: follows symlinks, since that is how mounted secrets are swapped. */
async function fingerprint(directory: string): Promise<string> {
  try {
    const names = (await readdir(directory)).sort();
    const parts = await Promise.all(
      names.map(async (name) => {
        const found = await stat(join(directory, name), { bigint: true }).catch(() => undefined);
        return found ? `${name}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}:${found.mode}` : `${name}:gone`;
      }),
    );
    return parts.join('|');
  } catch {
    return 'unreadable';
  }
}
