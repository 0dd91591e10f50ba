import type { DestinationStream } from 'pino';
import { record } from './transcript.js';

export type LogLine = Readonly<Record<string, unknown>>;

/** Collects log lines, and lets a test await the next that fits instead of sleeping. */
export class LogLines implements DestinationStream {
  readonly all: LogLine[] = [];
  readonly #waiting = new Set<() => void>();

  write(text: string): void {
    record(text.trimEnd());
    const line: unknown = JSON.parse(text);
    if (line !== null && typeof line === 'object') this.all.push({ ...line });
    for (const look of this.#waiting) look();
  }

  /** Audit lines of one event. */
  audits(event: string): LogLine[] {
    return this.all.filter((line) => line['audit'] === event);
  }

  /** Resolves with the first line from index `from` on that fits. */
  async until(fits: (line: LogLine) => boolean, from = 0): Promise<LogLine> {
    return await new Promise((resolve) => {
      const look = () => {
        const found = this.all.slice(from).find(fits);
        if (!found) return;
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }
}
