import { expect } from 'vitest';

/** Asserts status and wire code of an answer, and gives its body. */
export async function expectError(response: Response, status: number, error: string): Promise<Record<string, unknown>> {
  const body: unknown = await response.json();
  expect({ status: response.status, body }).toMatchObject({ status, body: { error } });
  expect(response.headers.getSetCookie()).toEqual([]);
  return body !== null && typeof body === 'object' ? { ...body } : {};
}
