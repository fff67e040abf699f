import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Built into the package: the bench serves it at /.
export default defineConfig({
  plugins: [react()],
  build: { outDir: "../src/helexa/bench/web", emptyOutDir: true, target: "es2022" },
  server: { proxy: { "/api": "http://127.0.0.1:13132" } },
});
