// Times the probe models with TensorFlow Lite Micro (TFLM) and prints the content of measurements.csv.
//
// Set up the clock and whatever DebugLog() prints to, then call probes_run(). Where something else has main()
// (Arduino, ESP-IDF), compile with -DPROBES_WITHOUT_MAIN and call probes_run() from there.
// Build it as the product will be built: same TFLM, kernels, optimization and clock.

#include <cstddef>
#include <cstdint>

#include "probes.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

// TO DO: define this one. Microseconds since any moment, of a timer that counts on while the core computes;
// it may overflow once in 2^32 microseconds. For example
//   Arduino:   return micros();
//   ESP-IDF:   return (uint32_t)esp_timer_get_time();
//   Cortex-M3, M4, M7, M33, after CoreDebug->DEMCR |= CoreDebug_DEMCR_TRCENA_Msk;
//                                 DWT->CTRL |= DWT_CTRL_CYCCNTENA_Msk;
//              static uint32_t last;
//              static uint64_t cycles;
//              uint32_t now = DWT->CYCCNT;
//              cycles += (uint32_t)(now - last);
//              last = now;
//              return (uint32_t)(cycles / (SystemCoreClock / 1000000u));
extern "C" uint32_t probe_microseconds(void);

namespace {

constexpr size_t kArenaBytes = $arena_bytes;
// A model is run until this much time has passed, so that a coarse timer does.
constexpr uint32_t kLeastMicroseconds = 200000;
constexpr int kMostRuns = 1024;

struct Probe {
  const char* file;
  const unsigned char* model;
};

const Probe kProbes[] = {
$table
};

alignas(16) uint8_t arena[kArenaBytes];

using Resolver = tflite::MicroMutableOpResolver<$n_operators>;

void AddOperators(Resolver& resolver) {
$registrations
}

void Measure(const Probe& probe, const Resolver& resolver) {
  tflite::MicroInterpreter interpreter(tflite::GetModel(probe.model), resolver, arena, kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("%s does not open", probe.file);
    return;
  }
  TfLiteTensor* input = interpreter.input(0);
  for (size_t i = 0; i < input->bytes; ++i) {
    input->data.int8[i] = static_cast<int8_t>(37 * i);
  }
  // The first run fills the caches: it is not timed.
  bool works = interpreter.Invoke() == kTfLiteOk;
  for (int runs = 1; works; runs *= 2) {
    const uint32_t start = probe_microseconds();
    for (int run = 0; run < runs && works; ++run) {
      works = interpreter.Invoke() == kTfLiteOk;
    }
    const uint32_t elapsed = probe_microseconds() - start;
    if (works && (elapsed >= kLeastMicroseconds || runs >= kMostRuns)) {
      // MicroPrintf knows no widths: the two decimals one by one.
      const int hundredths = static_cast<int>(static_cast<uint64_t>(elapsed) * 100 / runs);
      MicroPrintf("%s,%d.%d%d,%d", probe.file, hundredths / 100, hundredths / 10 % 10, hundredths % 10, runs);
      return;
    }
  }
  MicroPrintf("%s does not run", probe.file);
}

}  // namespace

extern "C" void probes_run(void) {
  Resolver resolver;
  AddOperators(resolver);
  MicroPrintf("model,latency_us,runs");
  for (const Probe& probe : kProbes) {
    Measure(probe, resolver);
  }
}

#ifndef PROBES_WITHOUT_MAIN
int main() {
  probes_run();
  return 0;
}
#endif
