import { afterEach } from 'vitest';
import { createWorld, type World, type WorldOptions } from './world.js';

/** Gives a function that opens worlds for one test; they are closed after it, the last one first: it may live on the files of another. */
export function useWorlds(): (options?: WorldOptions) => Promise<World> {
  const worlds: World[] = [];
  afterEach(async () => {
    for (const world of worlds.splice(0).reverse()) await world.close();
  });
  return async function open(options = {}) {
    const world = await createWorld(options);
    worlds.push(world);
    return world;
  };
}
