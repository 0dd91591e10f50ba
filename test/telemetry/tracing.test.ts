import { context, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { exchangeNative, postRefresh } from '../support/tokens.js';
import { createWorld, type World } from '../support/world.js';

const exporter = new InMemorySpanExporter();
let world: World;

beforeAll(async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
  const tracer = trace.getTracer('of the app');
  world = await createWorld({
    async first(ctx, next) {
      await tracer.startActiveSpan(`${ctx.method} ${ctx.path}`, async (span) => {
        await next().finally(() => span.end());
      });
    },
  });
});
afterAll(async () => {
  await world.close();
  trace.disable();
  context.disable();
});
beforeEach(() => exporter.reset());

const spanOf = (name: string) => exporter.getFinishedSpans().find((span) => span.name === name);

describe('spans for an OpenTelemetry SDK in the process', () => {
  it('the span of a request says who decided it, and how far they are, and names nobody', async () => {
    const cookie = await world.login('alice');
    await world.call('/me', { cookie, headers: { origin: 'https://app.example.com' } });
    expect(spanOf('GET /me')?.attributes).toEqual({
      'crossfade.credential': 'session',
      'crossfade.outcome': 'authenticated',
      'crossfade.client': 'web',
      'crossfade.cohort': 'web',
      'crossfade.stage': 'dual',
      'crossfade.reason': 'flag',
    });
    await world.call('/me', { bearer: 'not.a.token' });
    expect(JSON.stringify(exporter.getFinishedSpans().map(({ attributes }) => attributes))).not.toMatch(/alice|koa/);
  });

  it('exchange and refresh have spans of their own within it, with what came of them', async () => {
    const { refresh } = await exchangeNative(world, await world.login('alice'));
    const parent = spanOf('POST /auth/token');
    const exchange = spanOf('crossfade.token');
    expect(exchange?.parentSpanContext?.spanId).toBe(parent?.spanContext().spanId);
    expect(exchange?.attributes).toEqual({
      'crossfade.grant': 'exchange',
      'crossfade.client': 'android',
      'crossfade.cohort': 'android',
      'crossfade.outcome': 'granted',
      'http.response.status_code': 200,
    });
    exporter.reset();
    await postRefresh(world, refresh);
    await postRefresh(world, `${refresh}x`);
    expect(
      exporter.getFinishedSpans().flatMap(({ name, attributes }) => (name === 'crossfade.token' ? [attributes['crossfade.outcome']] : [])),
    ).toEqual(['granted', 'invalid_grant']);
  });
});
