import type { TestProject } from 'vitest/node';
import { provideRedis } from '../../scripts/lib/private-redis.js';

declare module 'vitest' {
  export interface ProvidedContext {
    redisUrl: string;
  }
}

/** One private Redis for the whole run, or the user's own by REDIS_URL. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const redis = await provideRedis();
  project.provide('redisUrl', redis.url);
  return redis.stop;
}
