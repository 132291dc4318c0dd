import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it as test } from 'node:test';
import { createApp, effectScope, h } from 'vue';
import { provideSkylark, useRoom, useSkylark } from '../../dist/esm/vue.js';
import { client, fakeTime, online, settle } from './fake.mjs';

let time;
beforeEach(() => (time = fakeTime()));
afterEach(() => time.end());

/** Runs `setup` in a component below one that provides the client. Returns its result and the end of the component. */
function component(it, setup) {
  const app = createApp({ render: () => h('p') });
  app.provide('skylark', it);
  const scope = effectScope();
  const made = scope.run(() => app.runWithContext(setup));
  return { made, end: () => scope.stop() };
}

describe('vue', () => {
  test('useSkylark follows state and user', async () => {
    const { it, net } = client();
    const { made, end } = component(it, useSkylark);
    assert.deepEqual([made.state.value, made.uid.value], ['idle', undefined]);
    it.connect();
    await settle();
    net.last.events.opened();
    net.answer(net.asked('client_bind')[0], { uid: 'ann', cid: '7' });
    assert.deepEqual([made.state.value, made.uid.value], ['online', 'ann']);
    end();
    it.close();
    assert.equal(made.state.value, 'online');
  });

  test('useRoom joins, keeps the newest messages, and leaves with its component', async () => {
    const { it, net } = await online();
    const { made, end } = component(it, () => useRoom('lobby', { keep: 2, latest: true }));
    assert.equal(net.asked('room_join')[0].data.latest, '1');
    assert.equal(made.joined.value, false);
    net.answer(net.asked('room_join')[0], { room: 'lobby' });
    assert.equal(made.joined.value, true);
    for (const text of ['1', '2', '3']) net.message({ stream: 'r:lobby', content: { text } });
    assert.deepEqual(made.messages.value.map(({ content }) => content.text), ['2', '3']);
    made.publish('hi').catch(() => {});
    assert.equal(net.asked('message')[0].data.to, 'room:lobby');
    net.drop();
    assert.equal(made.joined.value, false);
    await time.pass(250);
    end();
    assert.equal(it.room('lobby').joined, false);
    assert.equal(net.asked('room_leave').length, 0, 'offline: the node knows');
  });

  test('two components share a room, and the last one leaves it', async () => {
    const { it, net } = await online();
    const parts = [1, 2].map(() => component(it, () => useRoom('lobby')));
    assert.equal(net.asked('room_join').length, 1);
    net.answer(net.asked('room_join')[0], { room: 'lobby' });
    parts[0].end();
    assert.equal(net.asked('room_leave').length, 0);
    parts[1].end();
    assert.equal(net.asked('room_leave').length, 1);
  });

  test('refusal is in error', async () => {
    const { it, net } = await online();
    const { made } = component(it, () => useRoom('secret'));
    net.answer(net.asked('room_join')[0], {}, 403, 'not open');
    await settle();
    assert.equal(made.error.value.code, 403);
    assert.equal(made.joined.value, false);
  });

  test('composables without a client say what is missing', () => {
    assert.throws(() => createApp({}).runWithContext(useSkylark), /provideSkylark/);
    assert.equal(typeof provideSkylark, 'function');
  });
});
