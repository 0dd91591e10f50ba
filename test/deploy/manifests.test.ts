import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { provide, succeeds } from '../../scripts/lib/programs.js';
import { resolveConfig } from '../../src/config/load.js';
import { configSchema } from '../../src/config/schema.js';
import { createOwnPaths, POST_PATHS } from '../../src/endpoints/own-paths.js';
import { IDENTITY_HEADERS } from '../../src/endpoints/verify-endpoint.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { type RunningCli, startCli } from '../support/cli.js';
import { newPem } from '../support/keys.js';
import { dockerInstruction, readCompose } from '../support/topology.js';
import { remember } from '../support/transcript.js';
import { sharedRedisUrl } from '../support/world.js';

const DEPLOY = fileURLToPath(new URL('../../docs/deploy/', import.meta.url));
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string) => readFileSync(join(DEPLOY, path), 'utf8');
const proxyFiles = () => [
  ...readdirSync(join(DEPLOY, 'nginx')).map((name) => `nginx/${name}`),
  'compose/nginx.conf',
  'caddy/Caddyfile',
  'traefik/crossfade.yml',
  'envoy/envoy.yaml',
];
/** What a person reads of a file is not what the program reads. */
const withoutComments = (text: string) => text.replaceAll(/^\s*#.*$/gm, '').replaceAll(/ # .*$/gm, '');

/** The defaults of the program itself. */
const { http, listen, admin } = configSchema.parse({
  issuer: 'https://app.example.com',
  audience: ['a'],
  fleetSecretFile: 'x',
  redis: { url: 'redis://x' },
  sessions: [],
});
const isOwnPath = createOwnPaths(http.basePath);

describe('the proxy configurations', () => {
  it.each(proxyFiles())('%s: every path of the bridge in it is one that the program has', (file) => {
    const paths = [...withoutComments(read(file)).matchAll(/(?<=^|[\s"'`(:]|\d)(\/(?:auth|\.well-known)\/[\w./-]*)/gm)].map(([, path = '']) => path);
    for (const path of paths.filter((one) => one !== '/auth/' && one !== '/.well-known/')) expect(isOwnPath(path), path).toBe(true);
  });

  it.each(proxyFiles())('%s: every port of the bridge in it is the public one', (file) => {
    const ports = [...withoutComments(read(file)).matchAll(/\b(87\d\d)\b/g)].map(([, port]) => Number(port));
    for (const port of ports) expect(port).toBe(listen.port);
  });

  it.each(['nginx/crossfade-guard.conf', 'nginx/crossfade-open.conf'])('%s: every identity header is overwritten, once', (file) => {
    const set = [...withoutComments(read(file)).matchAll(/^proxy_set_header (X-Auth-\S+) /gm)].map(([, name]) => name);
    expect(set).toEqual([...IDENTITY_HEADERS]);
  });

  it('nginx/crossfade-guard.conf: takes every header from the bridge’s answer of the same name', () => {
    const text = read('nginx/crossfade-guard.conf');
    for (const name of [...IDENTITY_HEADERS, 'Authorization']) {
      const [, variable = ''] = new RegExp(`^proxy_set_header ${name} (\\$\\w+);$`, 'm').exec(text) ?? [];
      expect(text).toContain(`auth_request_set ${variable} $upstream_http_${name.toLowerCase().replaceAll('-', '_')};`);
    }
  });

  it('caddy/Caddyfile: copies every identity header and Authorization', () => {
    const [, copied = ''] = /copy_headers (.+)/.exec(read('caddy/Caddyfile')) ?? [];
    expect(copied.split(' ')).toEqual([...IDENTITY_HEADERS, 'Authorization']);
  });
});

describe('Traefik and Envoy: what only the files themselves can say', () => {
  it('Traefik: /api/ is guarded, and /auth/verify is nobody’s, before everything else', () => {
    const router = z.object({ rule: z.string(), middlewares: z.array(z.string()).optional(), service: z.string(), priority: z.number().optional() });
    const { http } = z.object({ http: z.object({ routers: z.record(z.string(), router) }) }).parse(parse(read('traefik/crossfade.yml')));
    const { app, pages, bridge, closed } = http.routers;
    expect(app).toEqual({ rule: 'PathPrefix(`/api/`)', middlewares: ['crossfade'], service: 'app' });
    expect(closed).toEqual({ rule: 'PathRegexp(`^/auth/verify([/;].*)?$`)', priority: 1000, service: 'noop@internal' });
    const [, regex = ''] = /^PathRegexp\(`(.*?)`\)/.exec(bridge?.rule ?? '') ?? [];
    expect(POST_PATHS.filter((name) => new RegExp(regex).test(`/auth/${name}`))).toEqual(POST_PATHS);
    for (const path of ['/auth/', '/auth/google', '/auth/tokens', '/auth/verify']) expect(new RegExp(regex).test(path), path).toBe(false);
    for (const open of [pages, bridge]) expect(open?.middlewares).toEqual(['nobody']);
    // Without a number it is the length of the rule.
    expect(Math.max(...Object.values(http.routers).map(({ rule }) => rule.length))).toBeLessThan(1000);
  });

  it('Envoy: all but the bridge’s own paths, the well-known paths and the pages is guarded, /auth/verify is nobody’s, and names with underscores are dropped', () => {
    const route = z.object({
      match: z.union([
        z.strictObject({ prefix: z.string() }).transform(({ prefix }) => prefix),
        z.strictObject({ path: z.string() }).transform(({ path }) => path),
        z.strictObject({ safe_regex: z.strictObject({ regex: z.string() }) }).transform(({ safe_regex: { regex } }) => regex),
      ]),
      route: z.object({ cluster: z.string() }).optional(),
      direct_response: z.object({ status: z.number() }).optional(),
      typed_per_filter_config: z.record(z.string(), z.object({ disabled: z.boolean() })).optional(),
    });
    const text = read('envoy/envoy.yaml');
    expect(text).toMatch(/^ +common_http_protocol_options: \{ headers_with_underscores_action: DROP_HEADER \}$/m);
    expect(text).toMatch(/^ +normalize_path: true$/m);
    const found: unknown[] = [];
    JSON.stringify(parse(text, { merge: true }), (name, value: unknown) => {
      if (name === 'routes') found.push(value);
      return value;
    });
    const routes = z.array(route).parse(found[0]);
    expect(
      routes.map(({ match, route: to, direct_response: direct, typed_per_filter_config: config }) => [
        match,
        to?.cluster ?? direct?.status,
        config !== undefined,
      ]),
    ).toEqual([
      ['/auth/verify([/;].*)?', 404, true],
      [`/auth/(${POST_PATHS.join('|')})`, 'crossfade', true],
      ['/.well-known/jwks.json', 'crossfade', true],
      ['/.well-known/oauth-authorization-server', 'crossfade', true],
      ['/api/', 'app', false],
      ['/', 'app', true],
    ]);
  });
});

const kubernetes = () => parseAllDocuments(read('kubernetes/crossfade.yaml'), { version: '1.1' }).map((document): unknown => document.toJS());
const port = z.object({ name: z.string(), containerPort: z.number() });
const probe = z.object({ httpGet: z.object({ path: z.string(), port: z.string() }) });
const deploymentSchema = z.object({
  kind: z.literal('Deployment'),
  spec: z.object({
    replicas: z.number(),
    selector: z.object({ matchLabels: z.record(z.string(), z.string()) }),
    template: z.object({
      metadata: z.object({ labels: z.record(z.string(), z.string()), annotations: z.record(z.string(), z.string()) }),
      spec: z.object({
        terminationGracePeriodSeconds: z.number(),
        securityContext: z.record(z.string(), z.unknown()),
        containers: z.tuple([
          z.object({
            args: z.array(z.string()),
            env: z.array(z.object({ name: z.string(), value: z.string() })),
            ports: z.array(port),
            livenessProbe: probe,
            readinessProbe: probe,
            startupProbe: probe,
            lifecycle: z.object({ preStop: z.object({ exec: z.object({ command: z.tuple([z.literal('sleep'), z.string()]) }) }) }),
            securityContext: z.object({ readOnlyRootFilesystem: z.literal(true), allowPrivilegeEscalation: z.literal(false) }),
            volumeMounts: z.array(z.object({ name: z.string(), mountPath: z.string(), readOnly: z.literal(true) })),
          }),
        ]),
        volumes: z.array(
          z.object({
            name: z.string(),
            configMap: z.object({ name: z.string() }).optional(),
            secret: z.object({ secretName: z.string(), defaultMode: z.number() }).optional(),
          }),
        ),
      }),
    }),
  }),
});
const configMapSchema = z.object({ kind: z.literal('ConfigMap'), metadata: z.object({ name: z.string() }), data: z.record(z.string(), z.string()) });
const serviceSchema = z.object({
  kind: z.literal('Service'),
  metadata: z.object({ name: z.string() }),
  spec: z.object({ selector: z.record(z.string(), z.string()), ports: z.array(z.object({ port: z.number(), targetPort: z.string() })) }),
});

function one<T>(schema: z.ZodType<T>): T {
  const [found] = kubernetes().flatMap((document) => schema.safeParse(document).data ?? []);
  if (!found) throw new Error('the manifest has no such document, or not in this form');
  return found;
}

describe('kubernetes/crossfade.yaml, with its mounts as Kubernetes makes them', () => {
  const deployment = one(deploymentSchema);
  const configMap = one(configMapSchema);
  const pod = deployment.spec.template.spec;
  const [container] = pod.containers;
  const env = Object.fromEntries(container.env.map(({ name, value }) => [name, value]));
  let directory: string;
  let running: RunningCli;
  let base: string;

  /** A mounted volume: `..data` is a symlink to where the files are, which are the root's and readable by its group. */
  function mount(name: string, files: Readonly<Record<string, string>>): void {
    const { mountPath = '' } = container.volumeMounts.find((one) => one.name === name) ?? {};
    const at = join(directory, mountPath);
    mkdirSync(join(at, '..2026'), { recursive: true });
    symlinkSync('..2026', join(at, '..data'));
    for (const [file, text] of Object.entries(files)) {
      writeFileSync(join(at, '..2026', file), text);
      chmodSync(join(at, '..2026', file), pod.volumes.find((one) => one.name === name)?.secret?.defaultMode ?? 0o644);
      symlinkSync(join('..data', file), join(at, file));
    }
  }

  const local = (text: string) => text.replaceAll('/etc/crossfade/', `${directory}/etc/crossfade/`);

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'crossfade-pod-'));
    const secret = 'K7mUeT0c5bq9Jw3pXz1yVn8sLr4hGd6fAa2oQiEuYtM';
    remember(secret, 'the-secrets-of-the-app-4711');
    mount('secrets', {
      'fleet-secret': secret,
      'admin-token': 'an-admin-token-of-some-length',
      'session-secrets': 'the-secrets-of-the-app-4711',
      'redis-url': sharedRedisUrl(),
      'records-url': sharedRedisUrl(),
    });
    mount('keys', { 'first.pem': newPem() });
    const text = configMap.data['crossfade.yaml'] ?? '';
    mount('config', {
      'crossfade.yaml': `${local(text)
        .replaceAll(/port: (8787|8788)/g, 'port: 0')
        .replace('redis: {', `redis: { keyPrefix: "crossfade-pod-${process.pid}:",`)}`,
      'flags.json': configMap.data['flags.json'] ?? '',
    });
    running = startCli(container.args.map(local), directory, env);
    const line = await running.logged('crossfade is listening');
    base = String(line['admin']).replace('0.0.0.0', '127.0.0.1');
  }, 60_000);
  afterAll(async () => {
    running.process.kill('SIGINT');
    await running.ended();
    rmSync(directory, { recursive: true, force: true });
  });

  it('starts with the command, the variables and the mounts of the manifest, and signs', async () => {
    const ready = await fetch(`${base}/readyz?for=issue`);
    expect([ready.status, await ready.text()]).toEqual([200, expect.any(String)]);
  });

  it('every probe is answered', async () => {
    for (const { httpGet } of [container.livenessProbe, container.readinessProbe, container.startupProbe]) {
      // Not one that a Redis that is away would make fail on all pods at once.
      expect(httpGet).toEqual({ path: '/healthz', port: 'admin' });
      expect((await fetch(`${base}${httpGet.path}`)).status, httpGet.path).toBe(200);
    }
    expect((await fetch(`${base}${deployment.spec.template.metadata.annotations['prometheus.io/path']}`)).status).toBe(200);
  });

  it('every port, name and path fits the configuration', () => {
    const parsed: unknown = parse((configMap.data['crossfade.yaml'] ?? '').replaceAll('${PUBLIC_URL}', env['PUBLIC_URL'] ?? ''));
    const config = configSchema.parse(parsed);
    const ports = Object.fromEntries(container.ports.map(({ name, containerPort }) => [name, containerPort]));
    expect(ports).toEqual({ http: config.listen.port, admin: config.admin.port });
    expect(deployment.spec.template.metadata.annotations['prometheus.io/port']).toBe(String(config.admin.port));
    const services = kubernetes().flatMap((document) => serviceSchema.safeParse(document).data ?? []);
    expect(services.flatMap(({ spec }) => spec.ports.map((service) => [service.port, ports[service.targetPort]]))).toEqual([
      [config.listen.port, config.listen.port],
      [config.admin.port, config.admin.port],
    ]);
    for (const { spec } of services) expect(deployment.spec.template.metadata.labels).toMatchObject(spec.selector);
    expect(deployment.spec.template.metadata.labels).toMatchObject(deployment.spec.selector.matchLabels);
    expect(config.admin.hosts).toContain(services[1]?.metadata.name);
    expect(pod.volumes.find(({ configMap }) => configMap)?.configMap?.name).toBe(configMap.metadata.name);
    expect(pod.volumes.map(({ name }) => name).sort()).toEqual(container.volumeMounts.map(({ name }) => name).sort());
    const variables = [...(configMap.data['crossfade.yaml'] ?? '').matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    expect([...new Set(variables)].sort()).toEqual(Object.keys(env).sort());
    const secrets = [...read('kubernetes/crossfade.yaml').matchAll(/\/etc\/crossfade\/secrets\/([\w-]+)/g)].map(([, name]) => name ?? '');
    const [, said = ''] = /crossfade-secrets +(.+)/.exec(read('kubernetes/crossfade.yaml')) ?? [];
    expect(said.split(', ').sort()).toEqual([...new Set(secrets)].sort());
  });

  it('a pod has the time that preStop and the drain take, and an eviction leaves enough of them', () => {
    const { shutdownSeconds } = resolveConfig(
      {
        issuer: 'https://a.example',
        audience: ['a'],
        fleetSecretFile: join(directory, 'etc/crossfade/secrets/fleet-secret'),
        redis: { url: 'redis://x' },
        sessions: [],
      },
      {},
    );
    const [, seconds] = container.lifecycle.preStop.exec.command;
    expect(configMap.data['crossfade.yaml']).toContain(`shutdownSeconds: ${shutdownSeconds}`);
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(Number(seconds) + shutdownSeconds);
    const labels = z.object({ matchLabels: z.record(z.string(), z.string()) });
    const { spec } = one(
      z.object({
        apiVersion: z.literal('policy/v1'),
        kind: z.literal('PodDisruptionBudget'),
        spec: z.object({ minAvailable: z.number(), selector: labels }),
      }),
    );
    expect(spec.minAvailable).toBeLessThan(deployment.spec.replicas);
    expect(spec.selector).toEqual(deployment.spec.selector);
    const policy = one(
      z.object({
        apiVersion: z.literal('networking.k8s.io/v1'),
        kind: z.literal('NetworkPolicy'),
        spec: z.object({ podSelector: labels, ingress: z.array(z.object({ ports: z.array(z.object({ port: z.string() })) })) }),
      }),
    );
    expect(policy.spec.podSelector).toEqual(deployment.spec.selector);
    expect(policy.spec.ingress.flatMap(({ ports }) => ports.map(({ port: name }) => name))).toEqual(container.ports.map(({ name }) => name));
    expect(pod.securityContext).toEqual({
      runAsNonRoot: true,
      runAsUser: 1000,
      runAsGroup: 1000,
      fsGroup: 1000,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    const commands = readFileSync(join(dirname(DEPLOY), 'deployment.md'), 'utf8');
    for (const { secret } of pod.volumes) if (secret) expect(commands).toContain(`kubectl create secret generic ${secret.secretName} `);
  });
});

describe('docker-compose.yml and the Dockerfile', () => {
  const compose = readCompose();
  const config = configSchema.parse(parse(read('compose/crossfade.yaml').replaceAll('${PUBLIC_URL}', 'http://localhost:8080')));

  it('every file that is mounted or copied is there', () => {
    const mounted = Object.values(compose.services).flatMap(({ volumes }) => volumes.map((volume) => volume.split(':')[0] ?? ''));
    const named = mounted.filter((source) => !source.startsWith('.'));
    for (const source of mounted.filter((one) => one.startsWith('.'))) expect(succeeds('test', ['-e', join(ROOT, source)]), source).toBe(true);
    expect(Object.keys(compose.volumes)).toEqual(expect.arrayContaining([...new Set(named)]));
    const ignored = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n');
    for (const [, sources = ''] of readFileSync(join(ROOT, 'Dockerfile'), 'utf8').matchAll(/^COPY (?!--from)(.+) \S+$/gm)) {
      for (const source of sources.split(' ')) expect(ignored, source).toContain(`!${source.replace('./', '')}`);
    }
  });

  it('services wait for services that there are, and the public port is the one that nginx listens on', () => {
    for (const [name, { depends_on: needed }] of Object.entries(compose.services)) {
      const named = Array.isArray(needed) ? needed : Object.keys(needed);
      for (const other of named) expect(Object.keys(compose.services), `${name} → ${other}`).toContain(other);
    }
    const [, listens] = /listen (\d+);/.exec(read('compose/nginx.conf')) ?? [];
    expect(compose.services['nginx']?.ports).toEqual([`127.0.0.1:${listens}:${listens}`]);
    expect(Object.keys(compose.services['bridge-1']?.depends_on ?? {})).toEqual(['init', 'redis']);
    const isHealthy = { condition: 'service_healthy' };
    for (const name of ['nginx', 'prometheus'])
      expect(compose.services[name]?.depends_on).toMatchObject({ 'bridge-1': isHealthy, 'bridge-2': isHealthy });
    const stages = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
      .split(/^FROM /m)
      .slice(1);
    for (const name of ['legacy', 'bridge']) {
      const stage = stages.find((one) => one.split('\n')[0]?.endsWith(` AS ${name}`)) ?? '';
      expect([...stage.matchAll(/^USER (.+)$/gm)].map(([, user]) => user)).toEqual(['node']);
    }
    // A named volume takes its owner from the directory of the image.
    expect(stages.at(-1)).toContain('install -d -o node -g node /state');
  });

  it('builds the image of the bridges once, and takes every other by its full version', () => {
    const { init, legacy, ...others } = compose.services;
    expect([init?.build, init?.image]).toEqual(['.', 'crossfade:local']);
    expect(legacy?.build).toEqual({ context: '.', target: 'legacy' });
    for (const name of ['bridge-1', 'bridge-2'])
      expect(others[name]).toMatchObject({ image: 'crossfade:local', pull_policy: 'never', depends_on: { init: {} } });
    for (const { build, image } of Object.values(others)) {
      expect(build).toBeUndefined();
      expect(image).toMatch(/^(crossfade:local|[\w/-]+:v?\d+\.\d+\.\d+[\w.-]*)$/);
    }
    expect(read('kubernetes/crossfade.yaml')).toMatch(/^ +image: \S+@sha256:[0-9a-f]{64}$/m);
  });

  it('every port and variable fits the configuration and the program', () => {
    expect([config.listen.port, config.admin.port]).toEqual([listen.port, admin.port]);
    const exposed = /^EXPOSE (.+)$/m.exec(readFileSync(join(ROOT, 'Dockerfile'), 'utf8'))?.[1];
    expect(exposed?.split(' ').map(Number)).toEqual([listen.port, admin.port]);
    expect(readFileSync(join(ROOT, 'Dockerfile'), 'utf8')).toContain(`http://127.0.0.1:${admin.port}/healthz`);
    expect([...read('prometheus/prometheus.yml').matchAll(/(bridge-\d):(\d+)/g)].map(([, , of]) => Number(of))).toEqual([admin.port, admin.port]);
    const used = [...read('compose/crossfade.yaml').matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    const app = readFileSync(join(ROOT, 'scripts/lib/legacy-main.ts'), 'utf8');
    for (const bridge of ['bridge-1', 'bridge-2']) expect(Object.keys(compose.services[bridge]?.environment ?? {})).toEqual([...new Set(used)]);
    for (const name of Object.keys(compose.services['legacy']?.environment ?? {})) expect(app).toContain(name);
  });

  it('the bridges need no rights: another user than root, nothing to write, time to drain', () => {
    const { shutdownSeconds } = config;
    for (const name of ['bridge-1', 'bridge-2']) {
      const service = compose.services[name];
      expect(service).toMatchObject({ read_only: true });
      expect(Number.parseInt(service?.stop_grace_period ?? '', 10)).toBeGreaterThan(shutdownSeconds);
      expect(service?.volumes.every((volume) => volume.endsWith(':ro'))).toBe(true);
    }
    expect(
      readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
        .split(/^FROM /m)
        .at(-1),
    ).toMatch(/^USER node$/m);
    expect([dockerInstruction('ENTRYPOINT'), dockerInstruction('CMD')]).toEqual([
      ['crossfade'],
      ['serve', '--config', '/etc/crossfade/crossfade.yaml'],
    ]);
  });
});

describe('prometheus/alerts.yml', () => {
  const rulesSchema = z.object({
    groups: z.tuple([
      z.object({
        rules: z.array(
          z.object({
            alert: z.string(),
            expr: z.string(),
            for: z
              .string()
              .regex(/^(\d+s|\d{1,2}m|1h)$/)
              .optional(),
            labels: z.object({ severity: z.enum(['warning', 'critical']) }),
            annotations: z.object({ summary: z.string(), runbook: z.string() }),
          }),
        ),
      }),
    ]),
  });
  const { groups } = rulesSchema.parse(parse(read('prometheus/alerts.yml')));
  const [{ rules }] = groups;
  const runbook = readFileSync(join(dirname(DEPLOY), 'runbook.md'), 'utf8');
  const sections = new Map(
    runbook
      .split(/^## /m)
      .slice(1)
      .map((section) => [anchorOf(section.split('\n')[0] ?? ''), section]),
  );

  it('every alert has its section in the runbook, with the same expression, and every section of a metric its alert', () => {
    for (const { alert, expr, annotations } of rules) {
      const section = sections.get(annotations.runbook.replace('docs/runbook.md#', ''));
      // What is only for the first count of a counter is left out there.
      const told = expr.replace(/ or \(crossfade_.*$/, '');
      expect(section?.includes(`\`${told}\``), `${alert}: ${told}`).toBe(true);
    }
    const told = new Set(rules.map(({ annotations }) => annotations.runbook.replace('docs/runbook.md#', '')));
    const untold = [...sections]
      .filter(([anchor, section]) => !told.has(anchor) && /^`[^`]*(?:crossfade_|up\{)/m.test(section))
      .map(([anchor]) => anchor);
    expect(untold).toEqual([]);
  });

  it('fires at the first count of each counter, when all bridges are gone, and not while all is well', () => {
    const promtool = provide('promtool', ['prometheus']);
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-rules-'));
    const counters = rules.flatMap(({ alert, expr, for: pending }) => {
      const [, metric = ''] = / or \((crossfade_\S+) unless /.exec(expr) ?? [];
      return metric === '' ? [] : [{ alert, metric, pending }];
    });
    expect(counters.length).toBeGreaterThan(7);
    const fires = (alert: string, at: string, count: number) => ({
      eval_time: at,
      alertname: alert,
      exp_alerts: Array.from({ length: count }, () => ({ exp_labels: {} })),
    });
    /** promtool compares labels too; only whether something fires is of interest here. */
    const firing = (series: readonly object[], at: string): string[] => {
      const file = join(directory, 'test.yml');
      const names = rules.map(({ alert }) => fires(alert, at, 0));
      writeFileSync(
        file,
        JSON.stringify({
          rule_files: [join(DEPLOY, 'prometheus/alerts.yml')],
          evaluation_interval: '15s',
          tests: [{ interval: '15s', input_series: series, alert_rule_test: names }],
        }),
      );
      const { stdout, stderr } = spawnSync(promtool, ['test', 'rules', file], { encoding: 'utf8' });
      return [...(stdout + stderr).matchAll(/alertname: (\w+), time: \w+,\s*\n\s*exp:\[\],\s*\n\s*got:\[\s*\n/g)].map(([, name]) => name ?? '');
    };
    try {
      const well = [
        { series: 'up{job="crossfade", instance="a"}', values: '1x200' },
        { series: 'crossfade_fleet_instances{instance="a"}', values: '1x200' },
        { series: 'crossfade_redis_up{instance="a"}', values: '1x200' },
        { series: 'crossfade_sessions_vanished_total{instance="a"}', values: '0x200' },
      ];
      expect(firing(well, '10m')).toEqual([]);
      for (const { alert, metric } of counters) {
        // Not there for five minutes, then at 1.
        const series = `${metric.includes('{') ? metric : `${metric}{by="x"}`}`;
        const born = [...well.filter(({ series: known }) => !known.startsWith(metric)), { series, values: '_x40 1x40' }];
        expect(firing(born, '14m'), alert).toContain(alert);
      }
      const reused = { series: 'crossfade_families_ended_total{reason="reused", instance="a"}', values: '0x24 1x200' };
      const losing = (values: string) => [...well, reused, { series: 'crossfade_lost_writes_total{redis="changed", instance="a"}', values }];
      expect(firing(losing('0x200'), '8m')).toContain('CrossfadeTokenReuse');
      // A minute before, from a counter that was there or not: for as long as the reuse would be told of.
      for (const values of ['0x20 5x200', '_x20 5x200'])
        for (const at of ['8m', '19m', '21m']) expect(firing(losing(values), at), `${values} ${at}`).not.toContain('CrossfadeTokenReuse');
      const releases = (failing: string) => [
        ...['"a"', '"b"'].flatMap((name) =>
          well.map(({ series, values }) => ({ series: series.replace('"a"', name), values: series.includes('fleet_instances') ? '2x200' : values })),
        ),
        { series: 'crossfade_build_info{instance="a", version="1"}', values: '1x200' },
        { series: 'crossfade_build_info{instance="b", version="2"}', values: '1x200' },
        { series: 'crossfade_requests_total{instance="a"}', values: '0+100x200' },
        { series: 'crossfade_requests_total{instance="b"}', values: '0+100x200' },
        { series: 'crossfade_own_faults_total{instance="b", of="exchange", fault="signing"}', values: failing },
      ];
      expect(firing(releases('0x200'), '20m')).toEqual([]);
      expect(firing(releases('0x40 0+20x160'), '20m')).toContain('CrossfadeReleaseWorse');
      expect(firing([{ series: 'up{job="crossfade", instance="a"}', values: '1x4 0x40' }], '5m')).toEqual(['CrossfadeDown']);
      expect(firing([{ series: 'up{job="other"}', values: '1x40' }], '5m')).toEqual(['CrossfadeDown']);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }, 60_000);
});

function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\w\s-]/g, '')
    .trim()
    .replaceAll(/\s+/g, '-');
}

describe('what is measured', () => {
  it('every metric of the dashboard, the alerts and the pages is one that /metrics exposes', async () => {
    const exposed = await createMetrics({ processMetrics: true }).registry.getMetricsAsJSON();
    const known = new Set(
      exposed.flatMap(({ name, type }) => (String(type) === 'histogram' ? [name, `${name}_bucket`, `${name}_sum`, `${name}_count`] : [name])),
    );
    const dashboard = dashboardSchema.parse(JSON.parse(read('grafana/crossfade.json')));
    const expressions = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
    expect(expressions.length).toBeGreaterThan(20);
    const docs = dirname(DEPLOY);
    const pages = readdirSync(docs).filter((name) => name.endsWith('.md'));
    const texts = [...expressions, read('prometheus/alerts.yml'), ...pages.map((name) => readFileSync(join(docs, name), 'utf8'))];
    const named = new Set(texts.flatMap((text) => text.match(/(?<![$@])\bcrossfade_[a-z0-9_]+/g) ?? []));
    expect([...named].filter((name) => !known.has(name))).toEqual([]);
  });

  it('the dashboard asks Prometheus in expressions that it understands', () => {
    const promtool = provide('promtool', ['prometheus']);
    const { panels } = dashboardSchema.parse(JSON.parse(read('grafana/crossfade.json')));
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-dashboard-'));
    try {
      const rules = panels.flatMap(({ targets = [] }) =>
        targets.map(({ expr }, at) => ({ record: `panel:${at}`, expr: expr.replaceAll('$job', 'crossfade').replaceAll('$__rate_interval', '1m') })),
      );
      const file = join(directory, 'rules.yml');
      writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules: rules.map((rule, at) => ({ ...rule, record: `panel:${at}` })) }] }));
      const { status, stdout, stderr } = spawnSync(promtool, ['check', 'rules', file], { encoding: 'utf8' });
      expect({ status, told: stdout + stderr }).toEqual({ status: 0, told: expect.stringContaining(`${rules.length} rules found`) });
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});

const dashboardSchema = z.object({
  panels: z.array(z.object({ title: z.string(), targets: z.array(z.object({ expr: z.string() })).optional() })),
});
