/** Composables for Vue 3. Everything ends with the scope of the component. */

import { type Ref, type ShallowRef, inject, onScopeDispose, provide, ref, shallowRef } from 'vue';
import type { JoinOptions, Message, Published, PublishOptions, Skylark, State } from './index.js';

const CLIENT = 'skylark';

/** Gives the client to this component and those below it: call it in `setup`. */
export function provideSkylark(client: Skylark): void {
  provide(CLIENT, client);
}

/** The client with its state and user as refs. */
export function useSkylark(): {
  client: Skylark;
  state: Ref<State>;
  uid: Ref<string | undefined>;
  request: Skylark['request'];
  publish: Skylark['publish'];
} {
  const client = inject<Skylark>(CLIENT);
  if (!client) throw new Error('useSkylark: no component above called provideSkylark');
  const state = ref(client.state);
  const uid = ref(client.uid);
  onScopeDispose(client.on('state', (value) => (state.value = value)));
  onScopeDispose(client.on('bound', (bound) => (uid.value = bound.uid)));
  return { client, state, uid, request: client.request.bind(client), publish: client.publish.bind(client) };
}

/**
 * Joins a room while the component is there.
 *
 * @param name Name of the room.
 * @param options `keep`: number of messages in `messages`, default 200; the oldest goes first.
 */
export function useRoom(
  name: string,
  { keep = 200, ...options }: JoinOptions & { keep?: number } = {},
): {
  messages: ShallowRef<Message[]>;
  joined: Ref<boolean>;
  error: ShallowRef<Error | undefined>;
  publish: (content: unknown, options?: PublishOptions) => Promise<Published>;
} {
  const { client, publish } = useSkylark();
  const room = client.room(name);
  const messages = shallowRef<Message[]>([]);
  const joined = ref(room.joined);
  const error = shallowRef<Error>();
  const enter = () => ((joined.value = true), (error.value = undefined));
  const fail = (failure: Error) => void (error.value = failure);
  const offs = [
    room.on('message', (message) => (messages.value = [...messages.value, message].slice(-keep))),
    room.on('joined', enter),
    room.on('left', () => (joined.value = false)),
    room.on('error', fail),
    client.on('state', () => (joined.value = room.joined)),
    () => void room.leave(),
  ];
  onScopeDispose(() => offs.forEach((off) => off()));
  room.join(options).then(enter, fail);
  return { messages, joined, error, publish: (content, options) => publish({ room: name }, content, options) };
}
