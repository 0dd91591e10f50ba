import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConfigInput } from '../../src/config/config.js';
import { generateKey } from '../../src/keys/generate.js';
import { freePort } from '../lib/free-port.js';
import { type LaunchDarklyServer, startLaunchDarkly } from '../lib/launchdarkly-server.js';
import { closeServer, type LegacyApp, startLegacyApp, urlOf } from '../lib/legacy-app.js';
import { type RunningProxy, startNginx } from '../lib/nginx.js';
import { type PrivateRedis, startRedis } from '../lib/private-redis.js';
import { startTcpProxy, type TcpProxy } from '../lib/tcp-proxy.js';
import { type BridgeProcess, createBridgeProcess } from './bridges.js';

/** All that a product has: the legacy app, its Redis, LaunchDarkly, three bridges with a Redis of their own, nginx before it all. */
export interface Place {
  /** What clients know. */
  readonly url: string;
  readonly directory: string;
  readonly legacy: LegacyApp;
  readonly launchDarkly: LaunchDarklyServer;
  readonly bridges: readonly BridgeProcess[];
  /** The bridges' Redis, and what stands before it: for each bridge one, so that one of them can be cut off. */
  redis: PrivateRedis;
  /** Of that Redis; `redisPasswordFile` holds it for the bridges. */
  redisPassword: string;
  readonly redisPasswordFile: string;
  readonly redisProxies: readonly TcpProxy[];
  readonly recordsProxy: TcpProxy;
  /** What the bridges' own keys start with. */
  readonly prefix: string;
  close(): Promise<void>;
}

/** Lives of the drill: short, so that every client refreshes several times. */
export const ACCESS_SECONDS = 30;
/** For the console and the operator's API of the drill's bridges. */
export const ADMIN_TOKEN = 'drill-operator-token-0f3c9a51';
/** Below this version the app was never taught to exchange. */
const MIN_VERSION = '4.0.0';

export async function openPlace(): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'crossfade-drill-'));
  const redisPassword = randomBytes(16).toString('base64url');
  const redis = await startRedis({ port: await freePort(), args: ['--requirepass', redisPassword] });
  const records = await startRedis({ port: await freePort() });
  const recordsProxy = await startTcpProxy(records.url);
  const redisProxies: TcpProxy[] = [];
  const launchDarkly = await startLaunchDarkly();
  const secrets = [randomBytes(24).toString('base64url')];
  const legacy = await startLegacyApp({ redisUrl: records.url, secrets });
  const backend = createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ subject: request.headers['x-auth-subject'] ?? '', via: request.headers['x-auth-via'] ?? '' }));
  }).listen(0, '127.0.0.1');
  await once(backend, 'listening');

  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  mkdirSync(join(directory, 'keys'));
  writeFileSync(join(directory, 'keys', 'first.pem'), (await generateKey('ES256')).pem, { mode: 0o600 });
  for (const [name, text] of [
    ['fleet-secret', randomBytes(32).toString('base64url')],
    ['session-secrets', secrets.join('\n')],
    ['sdk-key', 'sdk-of-the-drill'],
    ['redis-password', redisPassword],
    ['admin-token', ADMIN_TOKEN],
  ] as const)
    writeFileSync(join(directory, name), `${text}\n`, { mode: 0o600 });
  const keyPrefix = 'crossfade:';
  const bridges: BridgeProcess[] = [];
  for (const name of ['bridge-a', 'bridge-b', 'bridge-c']) {
    const proxy = await startTcpProxy(redis.url);
    redisProxies.push(proxy);
    const config = configOf({ url, keyPrefix, redis: proxy.url, records: recordsProxy.url, launchDarkly: launchDarkly.url });
    bridges.push(await createBridgeProcess(directory, name, config));
  }
  let nginx: RunningProxy | undefined;

  const place: Place = {
    url,
    directory,
    legacy,
    launchDarkly,
    bridges,
    redis,
    redisPassword,
    redisPasswordFile: join(directory, 'redis-password'),
    redisProxies,
    recordsProxy,
    prefix: `${keyPrefix}v1:`,
    async close() {
      await nginx?.stop();
      await Promise.all(bridges.map(async (bridge) => await bridge.stop()));
      await Promise.all(redisProxies.map(async (proxy) => await proxy.close()));
      await recordsProxy.close();
      await launchDarkly.stop();
      await legacy.close();
      await closeServer(backend);
      await place.redis.stop();
      await records.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  // The first sets the key; the others find it.
  for (const bridge of bridges) await bridge.start();
  nginx = await startNginx(
    bridges.map((bridge) => bridge.url),
    `location / { include crossfade-guard.conf; proxy_pass ${urlOf(backend)}; }
     location = /login { include crossfade-open.conf; proxy_pass ${legacy.url}; }
     location = /logout { include crossfade-open.conf; proxy_pass ${legacy.url}; }`,
    port,
  );
  return place;
}

interface Addresses {
  readonly url: string;
  readonly keyPrefix: string;
  readonly redis: string;
  readonly records: string;
  readonly launchDarkly: string;
}

function configOf({ url, keyPrefix, redis, records, launchDarkly }: Addresses): ConfigInput {
  return {
    issuer: url,
    audience: ['https://api.example.com'],
    fleetSecretFile: 'fleet-secret',
    http: { trustProxy: ['127.0.0.1/32'] },
    redis: { url: redis, passwordFile: 'redis-password', keyPrefix },
    sessions: [
      {
        name: 'web',
        secretsFile: 'session-secrets',
        redis: { url: records },
        cookieOptions: { secure: false },
        principal: { subject: 'user.id', tenant: 'user.tenant', roles: 'user.roles', scope: 'user.scope', authTime: 'user.loggedInAt' },
      },
    ],
    // So that at any moment some of them are renewed.
    tokens: { accessTtlSeconds: ACCESS_SECONDS, expiryJitter: 0.4 },
    keys: { selfTestSeconds: 1, publishSeconds: 2 },
    rollout: {
      shadowSampleRate: 0.2,
      flags: { launchdarkly: { sdkKeyFile: 'sdk-key', streamUri: launchDarkly, baseUri: launchDarkly, eventsUri: launchDarkly } },
    },
    clients: [
      { id: 'app', exchanges: true, wayBack: true, minVersion: MIN_VERSION, match: { userAgent: 'DrillApp/*' } },
      { id: 'partner', exchanges: true, match: { userAgent: 'DrillPartner/*' } },
      { id: 'kiosk', match: { userAgent: 'DrillKiosk/*' } },
    ],
    // All of them come from one address, and nobody is to wait for a minute.
    limits: { exchangePerSessionPerMinute: 10_000, failuresPerAddressPerMinute: 1_000_000 },
    shutdownSeconds: 2,
  };
}
