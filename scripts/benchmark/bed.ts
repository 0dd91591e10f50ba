import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { z } from 'zod';
import { deriveKey, Secret } from '../../src/config/secret.js';
import { signText } from '../../src/redis/signed-text.js';
import { type PrivateRedis, startRedis } from '../lib/private-redis.js';
import { type RunningApp, startApp } from './app.js';
import { onCore } from './cores.js';
import { createFixture, createSessions, createTokens, type Fixture } from './fixture.js';
import type { Workload } from './load.js';
import { startHaproxy, startNginx } from './proxy.js';
import { APP_SPECS, type AppId, type AppSpec, type Measure, WORKLOAD_SPECS, type WorkloadId, type WorkloadSpec } from './rows.js';

const refreshAnswer = z.object({ refresh_token: z.string() });

/** Everything that a run needs, made when it is first asked for: Redis servers with sessions in them, apps, tokens. */
export class Bed {
  readonly directory = mkdtempSync(join(tmpdir(), 'crossfade-bench-'));
  readonly #fixture: Fixture = createFixture(this.directory);
  readonly #apps = new Map<AppId, Promise<RunningApp>>();
  readonly #workloads = new Map<WorkloadId, Promise<Workload>>();
  readonly #servers = new Map<'few' | 'many', Promise<{ readonly redis: PrivateRedis; readonly cookies: readonly string[] }>>();
  readonly #say: (what: string) => void;
  readonly #nodeOptions: (app: AppId) => readonly string[];

  constructor(say: (what: string) => void, nodeOptions: (app: AppId) => readonly string[]) {
    this.#say = say;
    this.#nodeOptions = nodeOptions;
  }

  /** @throws where it does not come up: a peer that is not installed. */
  async app(id: AppId): Promise<RunningApp> {
    const known = this.#apps.get(id) ?? this.#start(id);
    this.#apps.set(id, known);
    return await known;
  }

  async workload(id: WorkloadId): Promise<Workload> {
    const known = this.#workloads.get(id) ?? this.#make(id);
    this.#workloads.set(id, known);
    return await known;
  }

  /** Where the sessions of most rows are. */
  async redisUrl(): Promise<string> {
    return (await this.#server('few')).redis.url;
  }

  /** How many commands all servers have carried out, but for those of this count. */
  async commands(): Promise<number> {
    let sum = 0;
    for (const server of this.#servers.values()) {
      const client = new Redis((await server).redis.url);
      sum += Number(/total_commands_processed:(\d+)/.exec(await client.info('stats'))?.[1]);
      client.disconnect();
    }
    return sum;
  }

  async close(): Promise<void> {
    for (const app of this.#apps.values()) await app.then((running) => running.stop()).catch(() => undefined);
    for (const server of this.#servers.values()) await server.then(({ redis }) => redis.stop()).catch(() => undefined);
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #start(id: AppId): Promise<RunningApp> {
    const { app, algorithm = 'ES256', many = false, revocations = 0, ...more }: AppSpec = APP_SPECS[id];
    if (app === 'haproxy') return await startHaproxy(this.#fixture);
    if (app === 'nginx') return await startNginx(this.#fixture, (await this.app('endpoints ES256')).port);
    const { redis } = await this.#server(many ? 'many' : 'few');
    const keyPrefix = `bench-${id.replaceAll(' ', '-')}:`;
    if (revocations > 0) await this.#writeRevocations(redis.url, keyPrefix, revocations);
    return await startApp({ app, fixture: this.#fixture, redisUrl: redis.url, algorithm, keyPrefix, ...more }, this.#nodeOptions(id));
  }

  async #server(size: 'few' | 'many') {
    const known = this.#servers.get(size) ?? this.#startServer(size);
    this.#servers.set(size, known);
    return await known;
  }

  async #startServer(size: 'few' | 'many') {
    const count = size === 'few' ? 1000 : 1_000_000;
    this.#say(`Redis with ${count.toLocaleString('en')} sessions`);
    const redis = await startRedis({ by: onCore('others') });
    const cookies = await createSessions({ fixture: this.#fixture, redisUrl: redis.url, count, cookies: size === 'few' ? count : 50_000 });
    return { redis, cookies };
  }

  /** As the bridge would have written them, had so many people logged out of late. */
  async #writeRevocations(url: string, keyPrefix: string, count: number): Promise<void> {
    this.#say(`${count.toLocaleString('en')} revocations`);
    const secret = new Secret(readFileSync(join(this.directory, 'fleet-secret'), 'utf8').trim());
    const macKey = deriveKey(secret, 'mac');
    const client = new Redis(url);
    for (let n = 0; n < count; ) {
      const pipeline = client.pipeline();
      for (const end = Math.min(count, n + 5000); n < end; n++) {
        const event = { type: 'session.ended', sid: `revoked-${n}`.padEnd(32, '0'), subject: `gone-${n}`, endedAt: Date.now() - 1000 };
        pipeline.xadd(`${keyPrefix}v1:events`, '*', 'event', signText(macKey, 'event', JSON.stringify(event)));
      }
      await pipeline.exec();
    }
    client.disconnect();
  }

  async #make(id: WorkloadId): Promise<Workload> {
    const { tokens, sessions, ...spec }: WorkloadSpec = WORKLOAD_SPECS[id];
    if (tokens) {
      if (tokens.count > 1000) this.#say(`${tokens.count.toLocaleString('en')} tokens`);
      const pem = readFileSync(join(this.directory, tokens.algorithm, 'bench.pem'), 'utf8');
      const made = await createTokens({ fixture: this.#fixture, pem, ...tokens });
      return { name: id, ...spec, texts: made.map((token) => `Bearer ${token}`), header: 'Authorization' };
    }
    if (sessions) {
      const { cookies } = await this.#server(sessions);
      return spec.form === undefined
        ? { name: id, ...spec, texts: cookies, header: 'Cookie' }
        : { name: id, ...spec, texts: cookies.map(encodeURIComponent) };
    }
    return { name: id, ...spec };
  }

  /** Refresh tokens that were not used yet, for an app that has just been asked for them. */
  async refreshTokens({ app }: Measure): Promise<readonly string[]> {
    const { port } = await this.app(app);
    const { texts = [], path = '', form = '' } = await this.workload('exchange');
    const tokens: string[] = [];
    for (const text of texts.slice(0, 500)) {
      const headers = { 'content-type': 'application/x-www-form-urlencoded' };
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers, body: form + text });
      tokens.push(refreshAnswer.parse(await response.json()).refresh_token);
    }
    return tokens;
  }
}
