import { expect, it } from 'vitest';
import { createTurns } from '../src/turns.js';

it('so many tasks run in one turn of the event loop, the others in the next ones, in their order, and others have their turn in between', async () => {
  const turns = createTurns(16);
  const seen: (number | 'other')[] = [];
  const waiting = Array.from({ length: 40 }, (_, n) =>
    turns.run(() => {
      seen.push(n);
      return n;
    }),
  );
  expect(seen).toHaveLength(16);
  const other = new Promise<void>((resolve) =>
    setImmediate(() => {
      seen.push('other');
      resolve();
    }),
  );
  await other;
  expect(seen).toHaveLength(33);
  expect(await Promise.all(waiting)).toEqual(Array.from({ length: 40 }, (_, n) => n));
  expect(seen.filter((one) => one !== 'other')).toEqual(Array.from({ length: 40 }, (_, n) => n));
});

it('a task that fails fails its own caller only', async () => {
  const turns = createTurns(1);
  const fail = (): number => {
    throw new Error('mine');
  };
  const tasks = [() => 1, fail, () => 3].map((task) => turns.run(task));
  expect(await Promise.allSettled(tasks)).toMatchObject([{ value: 1 }, { status: 'rejected' }, { value: 3 }]);
});
