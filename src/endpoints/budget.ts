import { unavailable } from '../errors.js';
import type { Reply, RequestHead } from './reply.js';

/** Requests that were answered because their time was over, while their work goes on. */
const overdue = new WeakSet<RequestHead>();

/**
 * Before an answer is written: a request that was answered already gets no second one.
 * @throws {CrossfadeError} `temporarily_unavailable`, so that what was made for nobody is taken back.
 */
export function assertInTime(head: RequestHead): void {
  if (overdue.has(head)) throw unavailable('redis');
}

/**
 * One time for all that a request asks of Redis: each command has its own, and a request may need six. What was begun goes on, since an end
 * must not stop half-way; `onLate` is called when it is done, with what it failed with.
 * @throws {CrossfadeError} `temporarily_unavailable` after `budgetMs`, and whatever `work` throws before.
 */
export async function withinBudget(
  head: RequestHead,
  budgetMs: number,
  work: () => Promise<Reply>,
  onLate: (error: unknown) => void,
): Promise<Reply> {
  let timer: NodeJS.Timeout | undefined;
  const done = work();
  const late = new Promise<never>((_, reject) => {
    // Answers that have arrived while this process was busy are read first.
    timer = setTimeout(() => setImmediate(() => reject(new OutOfTime())), budgetMs);
  });
  try {
    return await Promise.race([done, late]);
  } catch (error) {
    if (!(error instanceof OutOfTime)) throw error;
    overdue.add(head);
    done.then(() => onLate(undefined), onLate);
    throw unavailable('redis', error);
  } finally {
    clearTimeout(timer);
  }
}

class OutOfTime extends Error {
  override readonly name = 'OutOfTime';
  override readonly message = 'Redis took longer than twice redis.commandTimeoutMs in all';
}
