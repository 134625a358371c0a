/* Mappings, the heap, and code that changes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static void faulting(int n, siginfo_t *info, void *context)
{
    (void)context;
    siglongjmp(back, n + 100 * info->si_code);
}

static int try_read(const volatile char *at)
{
    int signal = sigsetjmp(back, 1);
    if (!signal)
        (void)*at;
    return signal;
}

static int try_write(volatile char *at)
{
    int signal = sigsetjmp(back, 1);
    if (!signal)
        *at = 1;
    return signal;
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sigaction action = {.sa_sigaction = faulting, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);

    char *map = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(map, 7, 0x10000);
    munmap(map + 0x4000, 0x1000);
    printf("hole %d %d %d\n", try_read(map + 0x3fff), try_read(map + 0x4000), try_read(map + 0x5000));
    mprotect(map + 0x8000, 0x2000, PROT_NONE);
    printf("none %d %d\n", try_read(map + 0x8000), try_write(map + 0x9fff));
    mprotect(map + 0x8000, 0x1000, PROT_READ);
    printf("read-only %d %d %d\n", try_read(map + 0x8000), try_write(map + 0x8000), map[0x8000]);
    printf("protect a hole %d %s\n", mprotect(map + 0x3000, 0x3000, PROT_READ), strerror(errno));
    char *again = mmap(map + 0x4000, 0x1000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("fixed %d %d\n", again == map + 0x4000, *again);
    again = mmap(map, 0x1000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    printf("occupied %d %s\n", again == MAP_FAILED, strerror(errno));
    printf("unaligned %d %s\n", munmap(map + 1, 10), strerror(errno));
    printf("empty %d %s\n", mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED,
           strerror(errno));
    printf("bad file %d %s\n", mmap(NULL, 10, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED, strerror(errno));

    char *big = mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(big + 0x2ff0, "the end");
    char *wall = mmap(big + 0x3000, 0x1000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("no room %d\n", mremap(big, 0x3000, 0x8000, 0) == MAP_FAILED && wall != MAP_FAILED);
    char *moved = mremap(big, 0x3000, 0x80000, MREMAP_MAYMOVE);
    printf("moved %d %s %d %d\n", moved != big, moved + 0x2ff0, moved[0x3000], try_write(moved + 0x7ffff));
    printf("gone %d\n", try_read(big));
    printf("shrunk %d %d\n", mremap(moved, 0x80000, 0x1000, 0) == moved, try_read(moved + 0x1000));

    char name[] = "/tmp/cairn-memory-XXXXXX";
    int file = mkstemp(name);
    unlink(name);
    ftruncate(file, 0x5000);
    pwrite(file, "deep", 4, 0x4000);
    char *shared = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0x1000);
    strcpy(shared, "written");
    shared = mremap(shared, 0x1000, 0x4000, MREMAP_MAYMOVE);
    printf("shared grows %d %s %s\n", shared != MAP_FAILED, shared, shared + 0x3000);
    char *private = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0x1000);
    private[0] = 'W';
    printf("private %s %s\n", private, shared);
    madvise(private, 0x1000, MADV_DONTNEED);
    printf("dropped %s\n", private);

    char *end = sbrk(0);
    char *heap = sbrk(0x21000);
    heap[0x20fff] = 1;
    printf("heap %d %d\n", heap == end, (char *)sbrk(-0x21000) == end + 0x21000);
    printf("heap back %d\n", sbrk(0) == end);

    int *common = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int own = 1;
    if (fork() == 0) {
        *common = 5;
        own = 6;
        _exit(own);
    }
    int status;
    wait(&status);
    printf("common %d own %d status %d\n", *common, own, WEXITSTATUS(status));

    /* li a0, N; ret */
    uint32_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int sum = 0;
    for (int i = 0; i < 50; i++) {
        code[0] = 0x00000513 | (uint32_t)i << 20;
        code[1] = 0x00008067;
        __builtin___clear_cache((char *)code, (char *)(code + 2));
        sum += ((int (*)(void))code)();
    }
    printf("changing code %d\n", sum);
    mprotect(code, 4096, PROT_READ | PROT_WRITE);
    int signal = sigsetjmp(back, 1);
    if (!signal)
        ((int (*)(void))code)();
    printf("not executable %d\n", signal);

    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    int stack = 0, itself = 0;
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        sscanf(line, "%lx-%lx", &from, &to);
        stack += strstr(line, "[stack]") && (unsigned long)&from >= from && (unsigned long)&from < to;
        itself += (unsigned long)main >= from && (unsigned long)main < to && strstr(line, "r-xp");
    }
    printf("maps %d %d\n", stack, itself);
    /* A private mapping of a file grows, keeps its changes, and shows the file behind them. */
    FILE *behind = tmpfile();
    for (int page = 0; page < 4; page++)
        for (int at = 0; at < 0x1000; at++)
            fputc('a' + page, behind);
    fflush(behind);
    char *grown = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(behind), 0);
    grown[5] = 'z';
    char *next = mmap(grown + 0x1000, 0x1000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    grown = mremap(grown, 0x1000, 0x3000, MREMAP_MAYMOVE);
    printf("grown %c %c %c %c\n", grown[4], grown[5], grown[0x1000], grown[0x2fff]);
    grown[0x2000] = 'y';
    grown = mremap(grown, 0x3000, 0x4000, MREMAP_MAYMOVE);
    printf("again %c %c %c %d\n", grown[5], grown[0x2000], grown[0x3000], next != MAP_FAILED);
    char *volatile null = NULL;
    printf("null %d\n", try_read(null));
    return 0;
}
