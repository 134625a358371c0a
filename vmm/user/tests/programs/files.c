/* Files, folders, and waiting for them. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    char folder[] = "/tmp/cairn-files-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder))
        return 1;
    umask(022);
    int file = open("data", O_RDWR | O_CREAT | O_EXCL, 0640);
    struct iovec parts[3] = {{"one ", 4}, {"two ", 4}, {"three\n", 6}};
    printf("writev %zd\n", writev(file, parts, 3));
    char left[6] = {0}, right[20] = {0};
    struct iovec places[2] = {{left, 5}, {right, 19}};
    printf("preadv %zd", preadv(file, places, 2, 2));
    printf(" '%s' '%s'\n", left, right);
    struct stat stat;
    fstat(file, &stat);
    printf("size %ld mode %o links %ld blocks %d\n", (long)stat.st_size, stat.st_mode, (long)stat.st_nlink,
           stat.st_blocks > 0);
    struct timespec times[2] = {{1000000000, 123456789}, {1200000000, 987654321}};
    utimensat(AT_FDCWD, "data", times, 0);
    lstat("data", &stat);
    printf("times %ld.%09ld %ld.%09ld\n", stat.st_atim.tv_sec, stat.st_atim.tv_nsec, stat.st_mtim.tv_sec,
           stat.st_mtim.tv_nsec);
    struct statx extended;
    statx(AT_FDCWD, "data", 0, STATX_ALL, &extended);
    printf("statx %llu %o\n", (unsigned long long)extended.stx_size, extended.stx_mode);
    symlink("data", "link");
    char target[64] = {0};
    printf("readlink %zd %s\n", readlink("link", target, sizeof target), target);
    link("data", "other");
    rename("other", "renamed");
    mkdir("sub", 0755);
    DIR *dir = opendir(".");
    char *names[16];
    int count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        names[count++] = strdup(entry->d_name);
    closedir(dir);
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++)
        printf("%s ", names[i]);
    printf("\n");
    char here[256];
    printf("cwd %d\n", strcmp(getcwd(here, sizeof here), folder));
    printf("access %d %d %s\n", access("data", R_OK), access("nothing", F_OK), strerror(errno));
    printf("open %d %s\n", open("sub/x/y", O_RDONLY), strerror(errno));
    printf("seek %ld %ld\n", (long)lseek(file, -3, SEEK_END), (long)lseek(file, 0, SEEK_CUR));
    printf("truncate %d", ftruncate(file, 5));
    fstat(file, &stat);
    printf(" %ld\n", (long)stat.st_size);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 3};
    printf("lock %d", fcntl(file, F_SETLK, &lock));
    lock.l_type = F_RDLCK;
    printf(" %d %d\n", fcntl(file, F_GETLK, &lock), lock.l_type == F_UNLCK);
    printf("flags %d %d\n", (fcntl(file, F_GETFL) & O_ACCMODE) == O_RDWR, fcntl(file, F_GETFD));
    struct statfs fs;
    printf("statfs %d %d\n", statfs(".", &fs), fs.f_bsize > 0 && fs.f_blocks >= fs.f_bfree);
    int copy = open("copy", O_RDWR | O_CREAT, 0600);
    off_t from = 1;
    printf("sendfile %zd %ld\n", sendfile(copy, file, &from, 10), (long)from);
    printf("copy_file_range %zd\n", copy_file_range(file, NULL, copy, NULL, 0, 0));
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    map[0] = 'X';
    msync(map, 4096, MS_SYNC);
    char byte;
    pread(file, &byte, 1, 0);
    printf("shared mapping %c\n", byte);

    int pipes[2];
    pipe2(pipes, O_CLOEXEC | O_NONBLOCK);
    printf("empty pipe %zd %s\n", read(pipes[0], &byte, 1), strerror(errno));
    write(pipes[1], "abc", 3);
    int waiting;
    ioctl(pipes[0], FIONREAD, &waiting);
    printf("waiting %d\n", waiting);
    struct pollfd polled[2] = {{pipes[0], POLLIN, 0}, {pipes[1], POLLOUT | POLLIN, 0}};
    printf("poll %d %x %x\n", poll(polled, 2, 1000), polled[0].revents, polled[1].revents);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipes[0], &set);
    struct timeval limit = {1, 0};
    printf("select %d %d\n", select(pipes[0] + 1, &set, NULL, NULL, &limit), FD_ISSET(pipes[0], &set));

    int epoll = epoll_create1(0), event = eventfd(0, EFD_NONBLOCK);
    struct epoll_event interest = {EPOLLIN, {.u64 = 0x1122334455667788}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, event, &interest);
    interest.data.u64 = 77;
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &interest);
    uint64_t value = 5;
    write(event, &value, 8);
    struct epoll_event events[4];
    int ready = epoll_wait(epoll, events, 4, 1000);
    uint64_t sum = 0;
    for (int i = 0; i < ready; i++)
        sum += events[i].data.u64;
    printf("epoll %d %llx\n", ready, (unsigned long long)sum);
    read(event, &value, 8);
    printf("eventfd %llu\n", (unsigned long long)value);

    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec setting = {.it_value = {0, 5000000}};
    timerfd_settime(timer, 0, &setting, NULL);
    read(timer, &value, 8);
    printf("timerfd %llu\n", (unsigned long long)value);

    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    int signals = signalfd(-1, &mask, 0);
    kill(getpid(), SIGUSR1);
    struct signalfd_siginfo info;
    read(signals, &info, sizeof info);
    printf("signalfd %u from me %d\n", info.ssi_signo, info.ssi_pid == (uint32_t)getpid());

    int watch = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(watch, "sub", IN_CREATE);
    close(open("sub/new", O_CREAT | O_WRONLY, 0600));
    char buffer[512];
    ssize_t got = read(watch, buffer, sizeof buffer);
    struct inotify_event *first = (void *)buffer;
    printf("inotify %d %s\n", got > 0, got > 0 ? first->name : "");
    struct winsize size;
    printf("no terminal %d %s\n", ioctl(file, TIOCGWINSZ, &size), strerror(errno));
    printf("isatty %d\n", isatty(file));

    int memory = memfd_create("name", 0);
    printf("memfd %d\n", ftruncate(memory, 100));
    unlink("sub/new");
    rmdir("sub");
    unlink("data");
    unlink("link");
    unlink("renamed");
    unlink("copy");
    chdir("/");
    printf("removed %d\n", rmdir(folder));
    return 0;
}
