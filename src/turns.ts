/**
 * Lets only so many tasks run in one turn of the event loop; the others wait for the next, in their order: whatever many ask for at once,
 * what others ask for has its turn in between.
 */
export interface Turns {
  run<T>(task: () => T): T | Promise<T>;
}

export function createTurns(perTurn: number): Turns {
  const waiting: (() => void)[] = [];
  let left = perTurn;
  let begun = false;

  function beginTurn(): void {
    left = perTurn;
    begun = false;
    for (const task of waiting.splice(0, perTurn)) {
      use();
      task();
    }
  }

  function use(): void {
    left -= 1;
    if (begun) return;
    begun = true;
    setImmediate(beginTurn);
  }

  return {
    run(task) {
      if (left > 0 && waiting.length === 0) {
        use();
        return task();
      }
      return new Promise((resolve, reject) => {
        waiting.push(() => {
          try {
            resolve(task());
          } catch (error) {
            reject(error);
          }
        });
      });
    },
  };
}
