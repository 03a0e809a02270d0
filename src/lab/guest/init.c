/*
 * The heartbeat guest: the only program of its initramfs, PID 1.
 *
 * It loads the drivers of its devices, configures eth0, dirties memory, and writes one heartbeat per period to its disk
 * (/dev/vda, under Xen /dev/xvda) until the disk is full. Whoever reads the disk can prove that no beat was lost, doubled, or written by a second
 * guest; src/lab/heartbeat.rs is that reader and must agree with this description.
 *
 * Disk: sectors of 512 bytes. Sector 0 is not used. The beat with number N stands in sector N + 1, so a beat has one
 * place where it can be. Each beat is one line of text, filled up with '.', the last byte being a newline:
 *
 *     HB <number> boot=<8 hex digits> mono=<seconds.mmm> rt=<seconds.mmm> prev=<8 hex> crc=<8 hex>\n.......\n
 *
 *     boot  the first 8 digits of the kernel's boot id: changes with each start of the guest, not with a migration
 *     mono  CLOCK_MONOTONIC of the guest;  rt  CLOCK_REALTIME of the guest
 *     crc   CRC-32 (IEEE 802.3) of the line up to, not including, the blank before "crc="
 *     prev  the crc of the beat before; 00000000 in beat 0. This chains the beats: two guests that write the same
 *           disk cannot both continue the chain.
 *
 * A beat is written with O_DIRECT|O_DSYNC: when the next one begins, the storage has confirmed this one. A failed
 * write is tried again with the same number. A guest that starts again continues after the last beat on the disk.
 * Between two beats it looks at the power button, and powers off when it was pressed (virsh shutdown). Under Xen, which has no
 * such button, the kernel calls /sbin/poweroff, which is this program too.
 *
 * Kernel parameters: hb.ip=10.77.0.101/24 (none: no network)  hb.ms=100 (period)  hb.mem=32 (MiB to keep dirtying)
 *                    hb.rate=4 (MiB per second; 0: none)
 *
 * The modules are listed, in the order in which they must be loaded, in /modules (one file name per line).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512, PAGE = 4096 };

static char cmdline[4096];

static uint32_t crc32_of(const void *data, size_t length)
{
	const uint8_t *byte = data;
	uint32_t crc = ~0u;

	while (length--) {
		crc ^= *byte++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? (crc >> 1) ^ 0xEDB88320u : crc >> 1;
	}
	return ~crc;
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_ms(long ms)
{
	struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };

	nanosleep(&t, NULL);
}

static void read_text(const char *path, char *text, size_t room)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = file < 0 ? -1 : read(file, text, room - 1);

	text[got < 0 ? 0 : got] = '\0';
	if (file >= 0)
		close(file);
}

/* Sleeps, then powers off if the power button was pressed. The kernel counts presses of ACPI's fixed button (kernel:
 * Documentation/ABI/testing/sysfs-firmware-acpi) once its driver, "button", is loaded. */
static void rest(long ms)
{
	char presses[64];

	sleep_ms(ms);
	read_text("/sys/firmware/acpi/interrupts/ff_pwr_btn", presses, sizeof presses);
	if (atol(presses) > 0) {
		printf("GUEST powers off\n");
		reboot(RB_POWER_OFF);
	}
}

/* Nothing can be done without the disk or the network: say why and keep the console readable. */
static void halt(const char *what)
{
	printf("GUEST halted: %s: %s\n", what, strerror(errno));
	for (;;)
		rest(100);
}

/* The value of a kernel parameter, or `fallback`. `key` includes the '='. */
static void parameter(const char *key, const char *fallback, char *value, size_t room)
{
	const char *found = strstr(cmdline, key);
	size_t length;

	if (!found) {
		snprintf(value, room, "%s", fallback);
		return;
	}
	found += strlen(key);
	length = strcspn(found, " \n");
	if (length >= room)
		length = room - 1;
	memcpy(value, found, length);
	value[length] = '\0';
}

static long number_parameter(const char *key, const char *fallback)
{
	char text[32];

	parameter(key, fallback, text, sizeof text);
	return atol(text);
}

static void load_modules(void)
{
	FILE *list = fopen("/modules", "re");
	char name[128];

	if (!list)
		halt("/modules");
	while (fgets(name, sizeof name, list)) {
		int file;

		name[strcspn(name, "\n")] = '\0';
		file = open(name, O_RDONLY | O_CLOEXEC);
		if (file < 0 || syscall(SYS_finit_module, file, "", 0))
			printf("MODULE %s: %s\n", name, strerror(errno));
		if (file >= 0)
			close(file);
	}
	fclose(list);
}

static void set_link_up(int control, const char *name)
{
	struct ifreq request = { 0 };

	strcpy(request.ifr_name, name);
	ioctl(control, SIOCGIFFLAGS, &request);
	request.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(control, SIOCSIFFLAGS, &request))
		printf("NET %s up: %s\n", name, strerror(errno));
}

static void bring_network_up(void)
{
	char address[64];
	char *slash;
	int prefix = 24;
	int control;
	struct ifreq request = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;

	parameter("hb.ip=", "", address, sizeof address);
	if (!address[0])
		return;
	slash = strchr(address, '/');
	if (slash) {
		*slash = '\0';
		prefix = atoi(slash + 1);
	}
	for (int tries = 0; tries < 250 && access("/sys/class/net/eth0", F_OK); tries++)
		sleep_ms(20);

	control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	set_link_up(control, "lo");
	strcpy(request.ifr_name, "eth0");
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = inet_addr(address);
	if (ioctl(control, SIOCSIFADDR, &request))
		halt("eth0 address");
	in->sin_addr.s_addr = htonl(prefix ? ~0u << (32 - prefix) : 0);
	if (ioctl(control, SIOCSIFNETMASK, &request))
		halt("eth0 netmask");
	set_link_up(control, "eth0");
	close(control);
	printf("NET eth0 %s/%d\n", address, prefix);
}

/* Writes fresh pseudo-random words into every page in turn, `rate` MiB per second: what live migration must send again. */
static void dirty_memory(long mib, long rate)
{
	size_t length = (size_t)mib << 20;
	uint8_t *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t random = 88172645463325252ull;
	double start = seconds(CLOCK_MONOTONIC);
	double done = 0;
	size_t offset = 0;

	if (memory == MAP_FAILED) {
		printf("DIRTY %ld MiB: %s\n", mib, strerror(errno));
		_exit(1);
	}
	for (;;) {
		double ahead;

		for (int page = 0; page < 64; page++) {
			uint64_t *word = (uint64_t *)(memory + offset);

			for (int i = 0; i < PAGE / 64; i++) {
				random ^= random << 13;
				random ^= random >> 7;
				random ^= random << 17;
				word[i * 8] = random;
			}
			offset = (offset + PAGE) % length;
			done += PAGE;
		}
		ahead = done / (rate * 1048576.0) - (seconds(CLOCK_MONOTONIC) - start);
		if (ahead > 0)
			sleep_ms((long)(ahead * 1000));
	}
}

static int open_disk(void)
{
	for (int tries = 0; tries < 500; tries++) {
		int how = O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC;
		int disk = open("/dev/vda", how);

		if (disk < 0)
			disk = open("/dev/xvda", how);
		if (disk >= 0)
			return disk;
		sleep_ms(20);
	}
	halt("/dev/vda");
	return -1;
}

static int is_beat(int disk, char *sector, uint64_t number)
{
	return pread(disk, sector, SECTOR, (off_t)(number + 1) * SECTOR) == SECTOR && !memcmp(sector, "HB ", 3);
}

/* How many beats the disk holds, found by bisection: the log has no holes. `previous` becomes the crc of the last. */
static uint64_t count_beats(int disk, char *sector, uint64_t room, uint32_t *previous)
{
	uint64_t low = 0, high = room;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (is_beat(disk, sector, middle))
			low = middle + 1;
		else
			high = middle;
	}
	*previous = 0;
	if (low && is_beat(disk, sector, low - 1)) {
		char *crc;

		sector[SECTOR - 1] = '\0';
		crc = strstr(sector, " crc=");
		if (crc)
			*previous = (uint32_t)strtoul(crc + 5, NULL, 16);
	}
	return low;
}

/* Fills `sector` with beat `number` and returns its crc. */
static uint32_t compose(char *sector, uint64_t number, const char *boot, uint32_t previous)
{
	uint32_t crc;
	int length = snprintf(sector, SECTOR, "HB %llu boot=%s mono=%.3f rt=%.3f prev=%08x", (unsigned long long)number,
			      boot, seconds(CLOCK_MONOTONIC), seconds(CLOCK_REALTIME), previous);

	crc = crc32_of(sector, length);
	length += snprintf(sector + length, SECTOR - length, " crc=%08x\n", crc);
	memset(sector + length, '.', SECTOR - length);
	sector[SECTOR - 1] = '\n';
	return crc;
}

static void beat(int disk)
{
	unsigned long long size = 0;
	long period = number_parameter("hb.ms=", "100");
	uint32_t previous;
	uint64_t number, room;
	char boot[40];
	char *sector;

	if (ioctl(disk, BLKGETSIZE64, &size) || posix_memalign((void **)&sector, PAGE, PAGE))
		halt("/dev/vda size");
	if (period < 1)
		period = 1;
	room = size / SECTOR - 1;
	read_text("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
	boot[8] = '\0';
	number = count_beats(disk, sector, room, &previous);
	printf("HB start number=%llu boot=%s size=%llu\n", (unsigned long long)number, boot, size);

	for (; number < room; number++) {
		uint32_t crc = compose(sector, number, boot, previous);

		while (pwrite(disk, sector, SECTOR, (off_t)(number + 1) * SECTOR) != SECTOR) {
			printf("HB number=%llu: %s\n", (unsigned long long)number, strerror(errno));
			rest(1000);
		}
		previous = crc;
		if (number % 10 == 0)
			printf("HB number=%llu mono=%.3f\n", (unsigned long long)number, seconds(CLOCK_MONOTONIC));
		rest(period);
	}
	errno = ENOSPC;
	halt("/dev/vda is full");
}

int main(void)
{
	long mib, rate;
	int console;

	if (getpid() != 1) {
		sync();
		return reboot(RB_POWER_OFF);
	}
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	console = open("/dev/console", O_RDWR);
	if (console >= 0) {
		dup2(console, 0);
		dup2(console, 1);
		dup2(console, 2);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	read_text("/proc/cmdline", cmdline, sizeof cmdline);

	load_modules();
	printf("GUEST up after %.2f s\n", seconds(CLOCK_MONOTONIC));
	bring_network_up();
	mib = number_parameter("hb.mem=", "32");
	rate = number_parameter("hb.rate=", "4");
	if (mib > 0 && rate > 0 && fork() == 0)
		dirty_memory(mib, rate);
	beat(open_disk());
}
