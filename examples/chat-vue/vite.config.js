import vue from '@vitejs/plugin-vue';
import { defineConfig } from 'vite';

// The package is a link to clients/js, which has a copy of Vue for its own tests.
export default defineConfig({ base: './', plugins: [vue()], resolve: { dedupe: ['vue'] } });
