import { type Attributes, type Span, SpanStatusCode, trace } from '@opentelemetry/api';

/**
 * Spans and their attributes, through the API of OpenTelemetry alone: whoever has an SDK in the process gets them, for nobody else anything
 * happens. Names and codes only (law 8): client, cohort, stage, outcome.
 */
const tracer = trace.getTracer('crossfade');

/** Does some work in a span of its own. */
export async function traced<T>(name: string, work: (span: Span) => Promise<T>): Promise<T> {
  return await tracer.startActiveSpan(name, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      span.setStatus({ code: SpanStatusCode.ERROR });
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Tells something of the span that is under way, which may be that of the app or of its framework. */
export function tellSpan(attributes: () => Attributes): void {
  trace.getActiveSpan()?.setAttributes(attributes());
}
