/* A libnvidia-ml.so.1 that answers from a text file, so that the real pynvml can be driven without a GPU.
 *
 * The file named by FAKE_NVML_STATE holds `key=value` lines and is read again whenever it changes:
 *
 *     driver=570.86.15          init=0 (or an NVML error number)       count=2
 *     gpu0.uuid=GPU-...         gpu0.memory=total,reserved,used        gpu0.compute=pid:bytes:gi:ci,pid:...
 *     gpu0.mig=1                gpu0.mig0.uuid=MIG-...                 gpu0.mig0.memory=...
 *
 * A key that is missing answers NVML_ERROR_NOT_SUPPORTED. A value `!15` answers error 15. A value `~8` hangs until
 * 8 seconds are over or the file says otherwise. `gpu0.all=!15` or `~8` goes for every question about that card.
 *
 * Built with -DOLD_DRIVER it lacks what came with drivers 470 to 510 (`_v3` process lists, memory v2).
 * Built with -DDRIVER_535 its `_v3` process lists have the longer record of drivers 535.43 to 535.129.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef int Return;
typedef struct { int gpu, mig; } *Device; /* mig < 0: the whole card */

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, MISMATCH = 25 };
enum { MAX_GPUS = 16, MAX_MIGS = 8, MAX_KEYS = 4096, LONG = 8192 };

static struct { char *key, *value; } table[MAX_KEYS];
static int keys, initialised;
static struct stat seen;
static char *text;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { int gpu, mig; } places[MAX_GPUS][MAX_MIGS + 1];

static int by_key(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void load(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat info;
    if (!path || stat(path, &info)) return;
    if (info.st_mtim.tv_sec == seen.st_mtim.tv_sec && info.st_mtim.tv_nsec == seen.st_mtim.tv_nsec &&
        info.st_ino == seen.st_ino && info.st_size == seen.st_size) return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    free(text);
    text = calloc(1, info.st_size + 1);
    if (fread(text, 1, info.st_size, file) != (size_t)info.st_size) text[0] = 0;
    fclose(file);
    seen = info;
    keys = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && keys < MAX_KEYS) {
        char *equals = strchr(line, '=');
        if (!equals) continue;
        *equals = 0;
        table[keys].key = line;
        table[keys++].value = equals + 1;
    }
    qsort(table, keys, sizeof table[0], by_key);
}

static int look_up(const char *key, char *value) {
    pthread_mutex_lock(&lock);
    load();
    int low = 0, high = keys - 1, found = 0;
    while (low <= high && !found) {
        int middle = (low + high) / 2, order = strcmp(key, table[middle].key);
        if (order == 0) {
            snprintf(value, LONG, "%s", table[middle].value);
            found = 1;
        } else if (order < 0) high = middle - 1;
        else low = middle + 1;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* Waits out a `~seconds` value and turns `!code` into its code. */
static Return settle(const char *key, char *value) {
    for (double waited = 0; value[0] == '~' && waited < atof(value + 1); waited += 0.02) {
        usleep(20000);
        if (!look_up(key, value)) return NOT_SUPPORTED;
    }
    return value[0] == '!' ? atoi(value + 1) : SUCCESS;
}

static Return system_value(const char *key, char *value) {
    if (!look_up(key, value)) return NOT_SUPPORTED;
    return settle(key, value);
}

static Return ask(Device device, const char *field, char *value) {
    char key[128];
    Return code;
    if (!initialised) return UNINITIALIZED;
    if (!device) return INVALID;
    snprintf(key, sizeof key, "gpu%d.all", device->gpu);
    if (look_up(key, value) && (code = settle(key, value))) return code;
    if (device->mig < 0) snprintf(key, sizeof key, "gpu%d.%s", device->gpu, field);
    else snprintf(key, sizeof key, "gpu%d.mig%d.%s", device->gpu, device->mig, field);
    if (!look_up(key, value)) return NOT_SUPPORTED;
    return settle(key, value);
}

static Return number(Device device, const char *field, u64 *out) {
    char value[LONG];
    Return code = ask(device, field, value);
    if (code == SUCCESS) *out = strtoull(value, NULL, 10);
    return code;
}

static Return small(Device device, const char *field, u32 *out) {
    u64 wide;
    Return code = number(device, field, &wide);
    if (code == SUCCESS) *out = (u32)wide;
    return code;
}

static Return words(Device device, const char *field, char *out, u32 length) {
    char value[LONG];
    Return code = ask(device, field, value);
    if (code == SUCCESS) snprintf(out, length, "%s", value);
    return code;
}

/* ---- the system ---- */

Return nvmlInitWithFlags(u32 flags) {
    char value[LONG];
    (void)flags;
    Return code = system_value("init", value);
    if (code == NOT_SUPPORTED) code = SUCCESS;
    if (code == SUCCESS) initialised = 1;
    return code;
}
Return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Return nvmlShutdown(void) { initialised = 0; return SUCCESS; }
const char *nvmlErrorString(Return code) { return code == 999 ? "Unknown Error" : "Some Error"; }

static Return system_words(const char *key, char *out, u32 length) {
    char value[LONG];
    Return code = initialised ? system_value(key, value) : UNINITIALIZED;
    if (code == SUCCESS) snprintf(out, length, "%s", value);
    return code;
}
Return nvmlSystemGetDriverVersion(char *out, u32 length) { return system_words("driver", out, length); }
Return nvmlSystemGetNVMLVersion(char *out, u32 length) { return system_words("driver", out, length); }
Return nvmlSystemGetCudaDriverVersion_v2(int *out) {
    char value[LONG];
    Return code = system_value("cuda", value);
    if (code == SUCCESS) *out = atoi(value);
    return code;
}
Return nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }
Return nvmlDeviceGetCount_v2(u32 *count) {
    char value[LONG];
    if (!initialised) return UNINITIALIZED;
    Return code = system_value("count", value);
    *count = code == SUCCESS ? (u32)atoi(value) : 0;
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

/* ---- handles ---- */

static Return place(int gpu, int mig, Device *out) {
    char value[LONG];
    places[gpu][mig + 1].gpu = gpu;
    places[gpu][mig + 1].mig = mig;
    Device device = (Device)&places[gpu][mig + 1];
    Return code = ask(device, "uuid", value);
    if (code == SUCCESS) *out = device;
    return code == NOT_SUPPORTED ? NOT_FOUND : code;
}
Return nvmlDeviceGetHandleByIndex_v2(u32 index, Device *out) {
    return index < MAX_GPUS ? place((int)index, -1, out) : INVALID;
}
Return nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    char value[LONG];
    for (int gpu = 0; gpu < MAX_GPUS; gpu++)
        if (place(gpu, -1, out) == SUCCESS && ask(*out, "uuid", value) == SUCCESS && !strcmp(uuid, value)) return SUCCESS;
    return NOT_FOUND;
}
Return nvmlDeviceGetMigDeviceHandleByIndex(Device device, u32 index, Device *out) {
    return device && index < MAX_MIGS ? place(device->gpu, (int)index, out) : INVALID;
}
Return nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device device, Device *out) {
    return device ? place(device->gpu, -1, out) : INVALID;
}
Return nvmlDeviceIsMigDeviceHandle(Device device, u32 *out) { *out = device && device->mig >= 0; return SUCCESS; }
Return nvmlDeviceGetIndex(Device device, u32 *out) { *out = (u32)device->gpu; return SUCCESS; }
Return nvmlDeviceGetMigMode(Device device, u32 *now, u32 *later) {
    Return code = small(device, "mig", now);
    *later = *now;
    return code;
}
Return nvmlDeviceGetMaxMigDeviceCount(Device device, u32 *out) { (void)device; *out = 7; return SUCCESS; }
Return nvmlDeviceGetGpuInstanceId(Device device, u32 *out) { return small(device, "gi", out); }
Return nvmlDeviceGetComputeInstanceId(Device device, u32 *out) { return small(device, "ci", out); }

/* ---- facts and figures ---- */

Return nvmlDeviceGetName(Device device, char *out, u32 length) { return words(device, "name", out, length); }
Return nvmlDeviceGetUUID(Device device, char *out, u32 length) { return words(device, "uuid", out, length); }

struct Pci { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; };
Return nvmlDeviceGetPciInfo_v3(Device device, struct Pci *out) {
    memset(out, 0, sizeof *out);
    return words(device, "pci", out->bus_id, sizeof out->bus_id);
}

struct Utilisation { u32 gpu, memory; };
Return nvmlDeviceGetUtilizationRates(Device device, struct Utilisation *out) {
    char value[LONG];
    Return code = ask(device, "utilisation", value);
    if (code == SUCCESS && sscanf(value, "%u,%u", &out->gpu, &out->memory) != 2) code = 999;
    return code;
}

struct Memory { u64 total, free, used; };
Return nvmlDeviceGetMemoryInfo(Device device, struct Memory *out) {
    char value[LONG];
    u64 reserved;
    Return code = ask(device, "memory", value);
    if (code) return code;
    sscanf(value, "%llu,%llu,%llu", &out->total, &reserved, &out->used);
    out->used += reserved; /* version 1 counts what the driver keeps as used */
    out->free = out->total - out->used;
    return SUCCESS;
}
#ifndef OLD_DRIVER
struct Memory2 { u32 version; u64 total, reserved, free, used; };
Return nvmlDeviceGetMemoryInfo_v2(Device device, struct Memory2 *out) {
    char value[LONG];
    if (out->version != (sizeof *out | 2u << 24)) return MISMATCH;
    Return code = ask(device, "memory", value);
    if (code) return code;
    sscanf(value, "%llu,%llu,%llu", &out->total, &out->reserved, &out->used);
    out->free = out->total - out->used - out->reserved;
    return SUCCESS;
}
#endif

#define SMALL(function, field) Return function(Device device, u32 *out) { return small(device, field, out); }
SMALL(nvmlDeviceGetPowerUsage, "power")
SMALL(nvmlDeviceGetEnforcedPowerLimit, "power_limit")
SMALL(nvmlDeviceGetPowerManagementLimit, "power_limit")
SMALL(nvmlDeviceGetFanSpeed, "fan")
SMALL(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen")
SMALL(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
SMALL(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max")
SMALL(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")

Return nvmlDeviceGetTemperature(Device device, u32 sensor, u32 *out) {
    return sensor ? INVALID : small(device, "temperature", out);
}
Return nvmlDeviceGetClockInfo(Device device, u32 kind, u32 *out) {
    return small(device, kind == 2 ? "memory_clock" : "sm_clock", out);
}
Return nvmlDeviceGetMaxClockInfo(Device device, u32 kind, u32 *out) {
    return small(device, kind == 2 ? "memory_clock_max" : "sm_clock_max", out);
}
Return nvmlDeviceGetCurrentClocksThrottleReasons(Device device, u64 *out) { return number(device, "held_back", out); }
Return nvmlDeviceGetCurrentClocksEventReasons(Device device, u64 *out) { return number(device, "held_back", out); }
Return nvmlDeviceGetPcieThroughput(Device device, u32 counter, u32 *out) {
    Return code = small(device, counter == 0 ? "pcie_tx" : "pcie_rx", out);
    if (code == SUCCESS) usleep(20000); /* as the driver does: it counts for 20 ms */
    return code;
}
Return nvmlDeviceGetTotalEccErrors(Device device, u32 kind, u32 counter, u64 *out) {
    (void)counter;
    return number(device, kind ? "ecc_uncorrected" : "ecc_corrected", out);
}
Return nvmlDeviceGetTotalEnergyConsumption(Device device, u64 *out) { return number(device, "energy", out); }

/* ---- processes ---- */

struct Process { u32 pid; u64 memory; u32 gpu_instance, compute_instance; };
struct LongProcess { u32 pid; u64 memory; u32 gpu_instance, compute_instance; u64 protected_memory; };

static Return processes(Device device, const char *field, u32 *count, void *out, int longer) {
    char value[LONG], *rest = value, *one;
    Return code = ask(device, field, value);
    u32 room = *count, found = 0;
    if (code) return code;
    while ((one = strsep(&rest, ","))) {
        struct LongProcess p = {0, 0, ~0u, ~0u, 0};
        if (sscanf(one, "%u:%llu:%u:%u", &p.pid, &p.memory, &p.gpu_instance, &p.compute_instance) < 2) continue;
        if (out && found < room) {
            if (longer) ((struct LongProcess *)out)[found] = p;
            else memcpy(&((struct Process *)out)[found], &p, sizeof(struct Process));
        }
        found++;
    }
    *count = found;
    return found > room ? TOO_SMALL : SUCCESS;
}
#ifdef DRIVER_535
enum { V3_LONGER = 1 };
#else
enum { V3_LONGER = 0 };
#endif
#define LIST(function, field) \
    Return function##_v2(Device d, u32 *n, void *out) { return processes(d, field, n, out, 0); }
#define LIST3(function, field) \
    Return function##_v3(Device d, u32 *n, void *out) { return processes(d, field, n, out, V3_LONGER); }
LIST(nvmlDeviceGetComputeRunningProcesses, "compute")
LIST(nvmlDeviceGetGraphicsRunningProcesses, "graphics")
LIST(nvmlDeviceGetMPSComputeRunningProcesses, "mps")
#ifndef OLD_DRIVER
LIST3(nvmlDeviceGetComputeRunningProcesses, "compute")
LIST3(nvmlDeviceGetGraphicsRunningProcesses, "graphics")
LIST3(nvmlDeviceGetMPSComputeRunningProcesses, "mps")
#endif
